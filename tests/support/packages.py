"""Packages that add tasks, installed as pip would do it, without a network."""

import shutil
import tomllib
from pathlib import Path

CAPITALS = Path(__file__).parents[1] / "plugins" / "capitals"
"""The example package."""


def install(package: Path, site: Path) -> None:
    """Copy a package and its metadata, the entry points as its pyproject.toml declares them."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    module = project["name"].replace("-", "_")
    shutil.copytree(package / module, site / module)
    info = site / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
