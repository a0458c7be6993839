"""Writes docs/cli.md from the help texts: `python -m xlt_bench.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from xlt_bench.cli.main import app

_HEAD = """\
# The command line

Written from the help texts by `python -m xlt_bench.cli.reference > docs/cli.md`; edit those, in
`xlt_bench/cli/`, and run it again.
"""


def commands() -> Iterator[tuple[str, str, Any]]:
    """The panel, the words (`xlt-bench data fetch`) and the object of each command, in order."""
    for name, command in _below(typer.main.get_command(app)):
        panel = command.rich_help_panel
        group = _below(command)
        for inner, subcommand in group:
            yield panel, f"xlt-bench {name} {inner}", subcommand
        if not group:
            yield panel, f"xlt-bench {name}", command


def page() -> str:
    """The whole page."""
    parts, last = [_HEAD], None
    for panel, words, command in commands():
        if panel != last:
            parts.append(f"\n## {panel}\n")
        last = panel
        parts.append(f"\n### {words}\n\n{shown(command.help)}\n")
        if params := [_param(one) for one in command.params]:
            parts.append("\n" + "\n".join(params) + "\n")
    return "".join(parts)


def shown(text: str) -> str:
    r"""A help text as a terminal shows it: Rich takes `\[` for a bracket."""
    return text.replace("\\[", "[")


def _below(command: Any) -> list[tuple[str, Any]]:
    return list(getattr(command, "commands", {}).items())


def _param(one: Any) -> str:
    """A list item: the option, what it does, and its default."""
    if one.param_type_name == "argument":
        words = one.metavar if one.required else f"[{one.metavar}]"
        words += "..." if one.nargs == -1 else ""
    else:
        words = one.opts[0] if one.is_flag else f"{one.opts[0]} {one.metavar}"
    default = one.show_default if isinstance(one.show_default, str) else one.default
    told = ["", shown(one.help)]
    if one.required:
        told.append("Required.")
    elif default not in (None, False):
        told.append(f"Default: {default}.")
    return f"- `{words}`:" + " ".join(told)


if __name__ == "__main__":
    print(page(), end="")
