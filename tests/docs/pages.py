"""The pages of the documentation, and the code blocks in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the number of its first line, its text, and why it is not run, if it is not."""

    page: str
    language: str
    line: int
    text: str
    reason: str


def name_of(page):
    """The path of a page from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """The fenced blocks of a page, in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = _NOT_RUN.fullmatch(lines[start - 1]) if start else None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        found.append(Block(name_of(page), lines[start][3:].strip(), start + 2, text, above[1] if above else ""))
        start = None
    assert start is None, f"{name_of(page)}: the block of line {start + 1} does not end"
    return found


def prose(page):
    """The lines of a page outside of its blocks, with their numbers."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield number, line
