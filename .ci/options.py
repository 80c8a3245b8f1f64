"""python .ci/options.py: write docs/options.md, every option of every group with its values and its comment."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dsel.config_groups import ROOT, options
from dsel.options import CONF, Option, described, heading, listed, top

PAGE = ROOT / "docs" / "options.md"
GROUPS = (
    "data targets embedder clusterer scorer selector selector/feedback model trainer evaluator engine tracker".split()
)

HEAD = """\
# Options

Every option, its value where nothing is said, what it may be, and what it means. An option is set on the command line
as `group.option=value` (`selector.rounds=2`); where the choices of a group differ in a value, each that differs is
named. This page is made from the files in `conf/` and the classes they name (`python .ci/options.py`); change those.
"""


def page() -> str:
    """The page, as Markdown."""
    parts = [HEAD, "## The run\n", _table(top())]
    for group in GROUPS:
        if (CONF / group).is_dir():
            parts += _group(group)
    return "\n".join(parts)


def _group(group: str) -> Iterator[str]:
    names = options(group)
    yield f"## {group}\n"
    yield "| choice | what it is |\n|---|---|"
    yield "".join(f"| `{name}` | {_cell(heading(CONF / group / f'{name}.yaml'))} |\n" for name in names)
    for each in described(group, names):
        if each.options:
            yield f"### {each.target}\n"
            yield f"Of {listed(each.choices)}. {each.says}\n"
            yield _table(each.options)


def _table(found: Sequence[Option]) -> str:
    lines = []
    for option in found:
        cells = ("<br>".join(option.values), option.wants, "<br>".join(option.meanings))
        lines.append(f"| `{option.name}` | {' | '.join(map(_cell, cells))} |\n")
    return "| option | value | wants | meaning |\n|---|---|---|---|\n" + "".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
