r"""Writes constraints-hashed.txt: the versions of constraints.txt with digests of their archives.

    pip install --dry-run --quiet --ignore-installed --no-deps --prefer-binary --report - \
        -r constraints.txt | python .github/hash_constraints.py > constraints-hashed.txt

Reads pip's installation report. The digests are those of the archives that pip chooses on this
machine, so run it where torch is found as a CPU build.
"""

import json
import sys
from collections import defaultdict

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEADER = """\
# constraints.txt with digests, for Linux on x86-64, Python 3.11 and the CPU build of torch:
#   pip install --require-hashes -r constraints-hashed.txt && pip install --no-deps .
# Written by .github/hash_constraints.py."""


def main() -> None:
    """Read a report from standard input, and print a line for each archive."""
    items = json.load(sys.stdin)["install"]
    # For pip, a package with extras is another one, which needs a line of its own.
    extras = defaultdict(set)
    for item in items:
        for text in item["metadata"].get("requires_dist", []):
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                extras[canonicalize_name(wanted.name)] |= wanted.extras
    lines = []
    for item in items:
        name = item["metadata"]["name"]
        version = item["metadata"]["version"].partition("+")[0]  # indexes know torch 2.13.0
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        asked = sorted(extras[canonicalize_name(name)])
        for named in [name, *(f"{name}[{extra}]" for extra in asked)]:
            lines.append(f"{named}=={version} --hash=sha256:{digest}")
    print("\n".join([HEADER, *sorted(lines, key=str.lower)]))


if __name__ == "__main__":
    main()
