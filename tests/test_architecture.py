"""docs/architecture.md against the code: every module has a level, and no import points upwards."""

import ast
import re
from pathlib import Path

import xlt_bench

PACKAGE = Path(xlt_bench.__file__).parent
TABLE = PACKAGE.parent / "docs" / "architecture.md"


def _levels() -> dict[str, int]:
    """The level of each module or folder (`data/`) of the table."""
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        name.rstrip("/"): int(level)
        for level, cell in rows
        for name in re.findall(r"`(.+?)`", cell)
    }


def _level(module: str, levels: dict[str, int]) -> int | None:
    """The level of `train.run` or of its folder; None if the table has neither."""
    parts = module.split(".")
    names = ("/".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((levels[name] for name in names if name in levels), None)


def _imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    inside = {name.removeprefix("xlt_bench.") for name in found if name.startswith("xlt_bench.")}
    return {
        name
        for name in inside
        if any((PACKAGE / name.replace(".", "/")).with_suffix(s).exists() for s in ("", ".py"))
    }


def test_no_import_points_to_a_higher_level() -> None:
    levels, wrong = _levels(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        imported = sorted(_imports(path))
        if path.name == "__init__.py" and not imported:
            continue
        own = _level(module.removesuffix(".__init__"), levels)
        assert own is not None, f"{module} is not in {TABLE.name}"
        for name in imported:
            other = _level(name, levels)
            if other is not None and other > own:
                wrong.append(f"{module} ({own}) imports {name} ({other})")
    assert wrong == []


def test_the_table_names_what_is_there() -> None:
    for name in _levels():
        assert (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file(), name
