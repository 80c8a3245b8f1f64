"""The README and docs/: links lead somewhere, what they name is there, commands compose, and recipes work."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dsel import config_groups, housekeeping
from dsel.config_groups import GROUPS
from dsel.report.spec import read
from dsel.usage import COMMANDS, help_on
from tests.conftest import ROOT
from tests.pages import PAGES, Page, composed, overlaid

FOLDERS = r"(?<![\w/.])(?:conf|dsel|experiments|sweeps|tests|docs|\.ci)/[\w./-]*\w"
MODULE = r"(?<![\w./-])(?:dsel|tests)(?:\.\w+)+(?![\w/-])"


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with overlaid(tmp_path_factory.mktemp("overlay")) as folder:
        yield folder


def first_values(overrides: Sequence[str]) -> list[str]:
    """The first job of a grid."""
    out = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        text = str(override.input_line)
        sweeps = override.is_sweep_override()
        out.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}" if sweeps else text)
    return out


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_and_anchors_lead_somewhere(path: Path) -> None:
    for link in Page.read(path).links:
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists() and target.is_relative_to(ROOT), link
        assert path.parent.name != "docs" or target.parent.name == "docs", f"{link}: the site has docs/ alone"
        assert not anchor or anchor in Page.read(target).anchors, link


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_files_and_modules_that_are_named_are_there(path: Path, overlay: Path) -> None:
    for text in Page.read(path).code:
        for name in re.findall(FOLDERS, text):
            there = any((root / name).exists() for root in (ROOT, overlay))
            assert there, name
        for name in re.findall(MODULE, text):
            assert resolves(name), name
    for name in re.findall(r"^::: (\S+)", path.read_text(encoding="utf-8"), flags=re.M):  # of the reference
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            found = getattr(found, word, None) or getattr(found, "__dataclass_fields__", {}).get(word)
        return found is not None
    return False


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_commands_are_ones_that_can_be_given(path: Path, overlay: Path) -> None:
    project, make = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "Makefile"))
    extras = re.findall(r"^([\w-]+) = \[", project.partition("[project.optional-dependencies]")[2], re.M)
    targets = re.findall(r"^([\w-]+):", make, re.M)
    for extra in re.findall(r"dsel\[([\w-]+)\]", path.read_text(encoding="utf-8")):
        assert extra in extras, extra
    for words in Page.read(path).commands:
        if words[0] == "make":
            assert words[1] in targets, words
        elif words[0] in ("python", "torchrun", "dsel"):
            start = 1 if words[0] == "dsel" else words.index("-m") + 2
            module = "dsel.run" if words[0] == "dsel" else words[start - 1]
            if words[0] == "dsel" and len(words) == 2:
                assert words[1] in (*COMMANDS, "help") or "=" in words[1] or words[1].startswith("-"), words
                continue
            if words[0] == "dsel" and words[1] == "help":
                assert list(help_on(words[2]))
                continue
            if words[0] == "dsel" and words[1] in COMMANDS:
                module, start = COMMANDS[words[1]].module.removesuffix(".__main__"), 2
            assert importlib.util.find_spec(module) is not None, words
            if module in ("dsel.run", "dsel.report"):
                own = {"source", "runs", "out", "entity", "project", "filters", "hydra.searchpath"}
                given = [w for w in words[start:] if "=" in w and w.partition("=")[0] not in own]
                composed(overlay, [o for o in first_values(given) if not o.startswith("report.")])
            if module in ("dsel.compare", "dsel.subset"):
                importlib.import_module(f"{module}.__main__")._parser().parse_args(words[start:])
            if module == "dsel.housekeeping":
                housekeeping._parser().parse_args(words[start - 1 :])


def test_the_sections_of_a_report_to_copy_are_ones() -> None:
    sections = [
        OmegaConf.create(text) for page in PAGES for language, text in Page.read(page).blocks if language == "yaml"
    ]
    found = [read(OmegaConf.to_container(section.report)) for section in sections if "report" in section]
    assert [len(spec.tables) for spec in found] == [1, 1]  # in the README, and with all keys in docs/


def test_every_choice_is_on_the_pages() -> None:
    index, methods = (ROOT.joinpath("docs", name).read_text(encoding="utf-8") for name in ("index.md", "methods.md"))
    for group in (*GROUPS, *config_groups.FOLDERS):
        (row,) = re.findall(rf"^\| `{group}` \|.*", index, flags=re.M)
        page = methods if group == "selector" else row
        missing = [choice for choice in config_groups.options(group) if not re.search(rf"\b{choice}`", page)]
        where = "docs/methods.md" if group == "selector" else f"its row of {group} in docs/index.md"
        assert not missing, f"{', '.join(missing)}: wanted in {where}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_options_that_are_named_are_there(path: Path, overlay: Path) -> None:
    known = options()
    for text in Page.read(path).code:
        for group, option in re.findall(rf"(?<![\w.])({'|'.join(GROUPS)})\.([a-z_]+)(?:\.[\w.]+)?=", text):
            assert option in known[group], text
        for group, choices in re.findall(
            rf"(?<![\w.])({'|'.join(GROUPS)}|experiments|sweeps)=([\w,]+)(?![\w,(])", text
        ):
            for choice in choices.split(","):
                files = (overlay / "conf" / group / f"{choice}.yaml", ROOT / group / f"{choice}.yaml")
                assert any(file.exists() for file in files), text


@cache
def options() -> dict[str, set[str]]:
    """The options of each group, whatever is chosen."""
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        found[section.splitlines()[0]] = set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M))
    return found


def test_the_page_of_options_is_the_one_of_these_files() -> None:
    spec = importlib.util.spec_from_file_location("options_page", ROOT / ".ci" / "options.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    current = module.page() == module.PAGE.read_text(encoding="utf-8")
    assert current, "the configuration has changed: python .ci/options.py writes docs/options.md again"
    assert set(GROUPS) <= set(module.GROUPS)


def test_every_option_says_what_it_means() -> None:
    """But for components inside others, which have their own rows, and evaluators' tasks."""
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|  \|$", (ROOT / "docs" / "options.md").read_text(), flags=re.M)
    silent = [
        option
        for option, wants in rows
        if not re.match(r"an? ([A-Z]|section as |feedback, as |selector, as )", wants) and option != "tasks"
    ]
    assert not silent, f"without a comment in conf/: {', '.join(silent)}"
