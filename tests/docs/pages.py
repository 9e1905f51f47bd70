"""Reads the project's Markdown pages: their blocks, their links, and what they say in code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_LANGUAGES = ("sh", "sql")
NO_RUN = "no-run"

_FENCE = re.compile(r"^( *)```+ *(.*)$")
_EXIT = re.compile(r"exit=(\d+)")
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_LEFT_OUT_FOLDERS = (".venv", ".cache", ".git", "node_modules")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``language`` and ``words`` are what stands behind the fence; ``shows`` is what it prints."""

    line: int
    language: str
    words: str
    text: str
    shows: str = ""

    @property
    def runs(self) -> bool:
        return self.language in RUN_LANGUAGES and not self.words.startswith(NO_RUN)

    @property
    def exit_code(self) -> int:
        found = _EXIT.search(self.words)
        return int(found[1]) if found else 0


def all_pages() -> list[Path]:
    """List every Markdown page of the project."""
    found = (path for path in ROOT.rglob("*.md") if not set(path.relative_to(ROOT).parts) & set(_LEFT_OUT_FOLDERS))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))


def user_pages() -> list[Path]:
    """List the pages whose commands a reader types."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/guide/*.md")), *sorted(ROOT.glob("docs/runbooks/*.md"))]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page; a ``text`` block right after one that is run becomes what that one shows."""
    found: list[Block] = []
    last_line = 0
    for block, end in _fenced(text.splitlines()):
        near = found and not "".join(text.splitlines()[last_line : block.line - 1]).strip()
        if block.language == "text" and near and found[-1].runs and not found[-1].shows:
            ran = found.pop()
            found.append(Block(ran.line, ran.language, ran.words, ran.text, block.text))
        else:
            found.append(block)
        last_line = end
    return found


def _fenced(lines: list[str]) -> Iterator[tuple[Block, int]]:
    """Yield each block with the number of lines up to its end."""
    opened: tuple[int, str, str] | None = None
    content: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            if opened is not None:
                content.append(line.removeprefix(opened[1]))
        elif opened is None:
            opened, content = (number, fence[1], fence[2]), []
        else:
            language, _, words = opened[2].strip().partition(" ")
            yield Block(opened[0], language, words.strip(), "\n".join(content)), number
            opened = None
    assert opened is None, f"a block that begins in line {opened} never ends"


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    lines = text.splitlines()
    for block, end in list(_fenced(lines)):
        for number in range(block.line - 1, end):
            lines[number] = ""
    return "\n".join(lines)


def code_texts(text: str) -> list[str]:
    """Return everything that a page shows as code: its blocks but those that show output, and code in sentences."""
    fenced = [block.text for block in blocks(text) if block.language not in {"text", "python", "json"}]
    return [*fenced, *_INLINE.findall(prose(text))]


def links(text: str) -> list[str]:
    """Return where the links of a page lead, without those to the web."""
    return [target for target in _LINK.findall(prose(text)) if "://" not in target and not target.startswith("mailto:")]


def anchors(text: str) -> set[str]:
    """Return the names under which a page's headings can be linked to, as GitHub makes them."""
    return {_anchor(heading) for heading in _HEADING.findall(prose(text))}


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")
