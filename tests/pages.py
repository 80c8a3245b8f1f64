"""The project's own pages: what is in them, and the files that their recipes make."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import compose, initialize_config_dir
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dsel.config_groups import FOLDERS, register
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(torchrun .*|python) -m (dsel|tests)\.|dsel |make |pip install ")


@dataclass(frozen=True)
class Page:
    path: Path
    tokens: Sequence[Token]

    @staticmethod
    @cache
    def read(path: Path) -> Page:
        tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
        return Page(path, [each for token in tokens for each in (token, *(token.children or ()))])

    @property
    def anchors(self) -> set[str]:
        """Of its headings, as far as GitHub and MkDocs agree on them."""
        titles = [
            "".join(t.content for t in heading.children or ())
            for opened, heading in zip(self.tokens, self.tokens[1:])
            if opened.type == "heading_open"
        ]
        return {slug for title in titles if (slug := github(title)) == mkdocs(title)}

    @property
    def links(self) -> list[str]:
        return [str(t.attrs["href"]) for t in self.tokens if t.type == "link_open"]

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """(language, text) of each code block."""
        return [(t.info, t.content) for t in self.tokens if t.type == "fence"]

    @property
    def code(self) -> list[str]:
        """What is in code, in text and in blocks."""
        return [t.content for t in self.tokens if t.type in ("fence", "code_inline")]

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command line; those with a `…` are no whole ones."""
        for text in self.code:
            for line in text.replace("\\\n", " ").splitlines():
                if COMMAND.match(line) and "…" not in line:
                    yield shlex.split(line, comments=True)


def github(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def mkdocs(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@dataclass(frozen=True)
class Part:
    """A code block of a recipe whose first line names the file that it is, or in which it has its place."""

    file: str
    where: str
    text: str


def parts(page: Path) -> list[Part]:
    found = [(re.match(r"# ([\w./]+\.(?:py|yaml))(?:: (.*))?\n", text), text) for _, text in Page.read(page).blocks]
    return [Part(first[1], first[2] or "", text[first.end() :]) for first, text in found if first]


@contextmanager
def overlaid(folder: Path) -> Iterator[Path]:
    """The files that the recipes make, beside ours, in `folder`: its `conf`, and modules of `dsel`."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    packages: dict[ModuleType, Path] = {}
    for part in (part for page in PAGES for part in parts(page) if not part.where):
        assert not (ROOT / part.file).exists(), f"{part.file} is there: a recipe would overwrite it"
        for place in [folder, folder / "conf"] if part.file.split("/")[0] in FOLDERS else [folder]:
            (place / part.file).parent.mkdir(parents=True, exist_ok=True)
            (place / part.file).write_text(part.text, encoding="utf-8")
        if part.file.endswith(".py"):
            parent = Path(part.file).parent
            packages[importlib.import_module(".".join(parent.parts))] = folder / parent
    register()
    for package, added in packages.items():
        package.__path__.append(str(added))
    yield folder
    for package, added in packages.items():
        package.__path__.remove(str(added))


def composed(folder: Path, overrides: Sequence[str]) -> Any:
    with initialize_config_dir(str(folder / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def presets() -> list[list[str]]:
    """The rows of docs/presets.md that name something of the hub: choice, hub, …, licence, access."""
    lines = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line[:3] == "| `"]
    return [row for row in rows if re.fullmatch(r"[\w-]+/[\w.-]+", row[1])]
