"""Hook of the documentation site: what pages link to outside ``docs/`` becomes a part of the site, below ``source/``.

Pages are written to be read in the repository, where ``../configs/gon-edge.yaml`` is a link like any other.  A Markdown
file comes in as a page, any other as a page that shows it; folders have no page, their links become plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# A phone is shown about as large as it is.  Names in the first column of a table stay whole where there is room, and
# wide tables of figures leave room for them.
_STYLE = """.md-typeset img[src*="-phone."] { width: 16em; }
@media (min-width: 60em) {
  .md-typeset table:not([class]) td:first-child { min-width: 12em; }
  .md-typeset table:not([class]) td:first-child code { white-space: nowrap; }
}
"""
_LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".py": "python", ".sh": "sh"}


def _target(place: str, link: str) -> str | None:
    """The file in the repository that a link of the file at ``place`` leads to; ``None`` for one that leaves it."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), path))


def _page(target: str) -> str:
    """Where in the site a file of the repository is."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target}" if target.endswith(".md") else f"source/{target}.md"


def _prose(text: str) -> list[str]:
    """The text in pieces, of which every second one is a fenced block."""
    return _FENCE.split(text)


def on_files(files: Files, config: Any) -> Files:
    """Add the linked files, what they link to, and the style."""
    files.append(File.generated(config, config["extra_css"][0], content=_STYLE))
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        place = waiting.pop()
        for piece in _prose((ROOT / place).read_text(encoding="utf-8"))[::2]:
            for _, _, link in _LINK.findall(piece):
                target = _target(place, link)
                if target is None or target in seen or target.startswith("docs/") or not (ROOT / target).is_file():
                    continue
                seen.add(target)
                text = (ROOT / target).read_text(encoding="utf-8")
                if target.endswith(".md"):
                    waiting.append(target)
                else:
                    text = f"# {target}\n\n````{_LANGUAGES.get(Path(target).suffix, 'text')}\n{text}\n````\n"
                files.append(File.generated(config, _page(target), content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at the places files have in the site."""
    here = page.file.src_uri
    place = here.removeprefix("source/") if here.startswith("source/") else f"docs/{here}"
    if here.startswith("source/") and not (ROOT / place).is_file():
        return markdown  # a page that shows a file

    def moved(match: re.Match[str]) -> str:
        picture, text, link = match.groups()
        target = _target(place, link)
        if target is None:
            return match[0]
        if (ROOT / target).is_dir():
            return str(text)
        anchor = link.partition("#")[1] + link.partition("#")[2]
        return f"{picture}[{text}]({posixpath.relpath(_page(target), posixpath.dirname(here) or '.')}{anchor})"

    pieces = _prose(markdown)
    pieces[::2] = [_LINK.sub(moved, piece) for piece in pieces[::2]]
    return "".join(pieces)
