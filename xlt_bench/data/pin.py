"""Write digests.json: `python -m xlt_bench.data.pin ROOT`, from a data folder known to be right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from xlt_bench.data import digests
from xlt_bench.data.catalog import catalog
from xlt_bench.results.run_folder import file_digest, write_bytes

# Their files at hand are the publishers' own, byte for byte. The rest of MASSIVE is rebuilt, and of
# FLORES there is only a mirror: content digests alone cover those.
_OWN = ("uner/", "wmt23/", "alma_human_written/", "tatoeba/", "massive/1.1/data/en-US.jsonl")
# As an audit by others gives it for the file in the publisher's archive; at hand only as .gz.
_EN_US = "c70f75c6a543a26e249ec383df67733ad9b1066f6c0406c2e04a3f03356e407e"


def rendered(root: Path) -> str:
    """The text of digests.json for a data folder. Raises InputError for a missing or bad file."""
    sums = {"massive/1.1/data/en-US.jsonl": _EN_US}
    for dataset in catalog().values():
        for file in dataset.files:
            path = root / file.path
            if file.path.startswith(_OWN) and path.exists():
                sums[file.path] = file_digest(path)
    files = ",\n".join(f"  {json.dumps(p)}: {json.dumps(s)}" for p, s in sorted(sums.items()))
    content = ",\n".join(f'  "{name}": {{\n{_units(name, root)}\n  }}' for name in catalog())
    return f'{{\n "files": {{\n{files}\n }},\n "content": {{\n{content}\n }}\n}}\n'


def _units(dataset: str, root: Path) -> str:
    lines = []
    for unit in sorted(digests.units(dataset)):
        found = digests.contents(dataset, unit, root)
        value = {split: [content.rows, content.digest] for split, content in found}
        lines.append(f'   "{unit}": {json.dumps(value)}')
    return ",\n".join(lines)


if __name__ == "__main__":
    write_bytes(digests.PATH, rendered(Path(sys.argv[1])).encode())
