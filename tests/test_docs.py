"""Tests that the links of the pages lead somewhere, and that the commands they show exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from xlt_bench.cli.reference import commands

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {words: command for _, words, command in commands()}


def _anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {words.replace(" ", "-") for words in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / place) if place else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _shown():
    """The xlt-bench commands in the shell blocks of all pages but the reference."""
    for page in PAGES:
        if page.name not in ("cli.md", "CHANGELOG.md"):
            for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
                for line in block.replace("\\\n", " ").splitlines():
                    if re.match(r"\s*(\w+=\S* )*xlt-bench ", line):
                        yield pytest.param(line, id=f"{page.name}: {' '.join(line.split())[:60]}")


@pytest.mark.parametrize("line", list(_shown()))
def test_a_shown_command_and_its_options_exist(line):
    words = shlex.split(line, comments=True)
    words = words[words.index("xlt-bench") :]
    words = words[: next((i for i, word in enumerate(words) if word in "|>;&&"), len(words))]
    found = [name for n in (2, 3) if (name := " ".join(words[:n])) in COMMANDS]
    assert found or words[1].startswith("-"), line
    params = COMMANDS[found[-1]].params if found else []
    known = {name for param in params for name in param.opts} | {"--help", "--version"}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def test_the_site_has_every_page():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = [page for part in navigation for pages in part.values() for page in pages]
    files = [file for page in named for file in page.values()]
    there = [path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")]
    assert sorted(files) == sorted(path.name for path in there)
