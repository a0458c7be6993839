"""Writes digests.json from a data folder whose files are known to be right.

`python -m xlt_bench.data.pin ROOT` writes all of it again; `xlt-bench data pin` adds the units that
a new version of a task needs (`with_units`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from xlt_bench.data import digests
from xlt_bench.data.catalog import catalog
from xlt_bench.results.run_folder import file_digest, write_bytes

# The files that were pinned in these folders are the publishers' own, byte for byte. The rest of
# MASSIVE was rebuilt and FLORES-200 came from a mirror: those have content digests alone.
_OWN = (
    "uner/",
    "wmt23/",
    "alma_human_written/",
    "tatoeba/",
    "ntrex/",
    "massive/1.1/data/en-US.jsonl",
)
# From an independent audit of the file in the publisher's archive.
_EN_US = "c70f75c6a543a26e249ec383df67733ad9b1066f6c0406c2e04a3f03356e407e"
Content = Mapping[str, Mapping[str, tuple[int, str]]]
"""Number of rows and digest, by unit and split."""


def rendered(root: Path) -> str:
    """The text of digests.json, computed again for its units.

    Args:
        root: The data folder.

    Raises:
        InputError: A file is missing or broken.
    """
    sums = {"massive/1.1/data/en-US.jsonl": _EN_US}
    for dataset in catalog().values():
        for file in dataset.files:
            path = root / file.path
            if file.path.startswith(_OWN) and path.exists():
                sums[file.path] = file_digest(path)
            elif file.sha256:  # pinned before, and not in this folder
                sums[file.path] = file.sha256
    content = {
        name: {unit: _content(name, unit, root) for unit in digests.pinned(name)}
        for name in catalog()
    }
    return _text(sums, content)


def with_units(root: Path, added: Iterable[tuple[str, str]]) -> str:
    """The text of digests.json with more units; those that are pinned already stay.

    Args:
        root: The data folder.
        added: The new units, each as (data set, unit).

    Raises:
        InputError: A file of an added unit is missing or broken.
    """
    content = {
        name: {
            unit: {split: (found.rows, found.digest) for split, found in splits.items()}
            for unit, splits in digests.pinned(name).items()
        }
        for name in catalog()
    }
    for name, unit in added:
        if unit not in content[name]:
            content[name][unit] = _content(name, unit, root)
    return _text(digests.file_sums(), content)


def _content(dataset: str, unit: str, root: Path) -> dict[str, tuple[int, str]]:
    found = digests.contents(dataset, unit, root)
    return {split: (content.rows, content.digest) for split, content in found}


def _text(sums: Mapping[str, str], content: Mapping[str, Content]) -> str:
    files = ",\n".join(f"  {json.dumps(p)}: {json.dumps(s)}" for p, s in sorted(sums.items()))
    parts = []
    for name, units in content.items():
        lines = [f'   "{unit}": {json.dumps(splits)}' for unit, splits in sorted(units.items())]
        parts.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
    body = ",\n".join(parts)
    return f'{{\n "files": {{\n{files}\n }},\n "content": {{\n{body}\n }}\n}}\n'


if __name__ == "__main__":
    write_bytes(digests.PATH, rendered(Path(sys.argv[1])).encode())
