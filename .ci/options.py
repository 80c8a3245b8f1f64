"""python .ci/options.py: write docs/options.md, every option of every group with its values and its comment.

What an option means is said in the files in `conf/`, or in those of their `defaults:`, and in the classes' docstrings.
"""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dsel.constraints import words

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "options.md"
GROUPS = "data embedder clusterer scorer selector selector/feedback model trainer evaluator engine tracker".split()
AROUND = {"selector/feedback": ["selector=iterative"]}  # what a group needs to be there

HEAD = """\
# Options

Every option, its value where nothing is said, what it may be, and what it means. An option is set on the command line
as `group.option=value` (`selector.rounds=2`); where the choices of a group differ in a value, each that differs is
named. This page is made from the files in `conf/` and the classes they name (`python .ci/options.py`); change those.
"""


def page() -> str:
    """The page, as Markdown."""
    said = {"config": comments(CONF / "config.yaml")}
    parts = [HEAD, "## The run\n", _table(_rows({"config": _top()}, said))]
    for group in GROUPS:
        if (CONF / group).is_dir():
            parts += _group(group)
    return "\n".join(parts)


def _top() -> dict[str, Any]:
    known = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    return {name: value for name, value in known.items() if name not in ("defaults", "hydra")}


def _group(group: str) -> Iterator[str]:
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = {name: _composed(group, name) for name in names}
    classes: dict[str, list[str]] = {}
    for name, values in composed.items():
        classes.setdefault(values["_target_"], []).append(name)
    yield f"## {group}\n"
    yield "| choice | what it is |\n|---|---|"
    yield "".join(f"| `{name}` | {_cell(heading(CONF / group / f'{name}.yaml'))} |\n" for name in names)
    for target, chosen in classes.items():
        values = {name: _flat(composed[name]) for name in chosen}
        said = {name: comments(CONF / group / f"{name}.yaml") for name in chosen}
        if rows := _rows(values, said, target):
            yield f"### {target}\n"
            yield f"Of {_listed(chosen)}. {_docstring(target)}\n"
            yield _table(rows)


def _composed(group: str, name: str) -> dict[str, Any]:
    config = compose("config", overrides=[*AROUND.get(group, ()), f"{group}={name}"])
    return OmegaConf.to_container(OmegaConf.select(config, group.replace("/", ".")), resolve=False)  # type: ignore[return-value]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options without the class; a component inside another is named and not listed again."""
    inner = {name: value for name, value in values.items() if isinstance(value, dict) and "_target_" in value}
    plain = {name: value for name, value in values.items() if name != "_target_" and name not in inner}
    return plain | {name: _Component(value["_target_"]) for name, value in inner.items()}


class _Component(str):
    """The class of a component inside another."""


def _rows(
    values: Mapping[str, Mapping[str, Any]], said: Mapping[str, Mapping[str, str]], target: str | None = None
) -> list[tuple[str, str, str, str]]:
    """(option, value, what it may be, meaning) of choices of one class; values that differ from most are named."""
    hints = {} if target is None else typing.get_type_hints(_class(target), include_extras=True)
    rows = []
    for option in dict.fromkeys(option for each in values.values() for option in each):
        shown = {name: _value(each[option], name) for name, each in values.items() if option in each}
        usual = Counter(shown.values()).most_common(1)[0][0]
        others = "".join(f"<br>{name}: {value}" for name, value in shown.items() if value != usual)
        every = [item for each in said.values() for item in each.items()]
        meanings = [text for path, text in every if path == option]
        meanings += [f"{path}: {text}" for path, text in every if path.startswith(f"{option}.")]
        wants = words(hints[option]) if option in hints else ""
        rows.append((option, usual + others, wants, "<br>".join(dict.fromkeys(meanings))))
    return rows


def _table(rows: Sequence[tuple[str, str, str, str]]) -> str:
    lines = [f"| `{option}` | {' | '.join(map(_cell, cells))} |\n" for option, *cells in rows]
    return "| option | value | wants | meaning |\n|---|---|---|---|\n" + "".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _value(value: Any, choice: str) -> str:
    if isinstance(value, _Component):
        return f"{value}, with all options of it"
    if value == choice:
        return "as the choice is called"
    if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
        return f"of {_listed(list(value))}"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("\n", "\\n")


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _docstring(target: str) -> str:
    return inspect.getdoc(_class(target)) or ""


def _class(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def heading(path: Path) -> str:
    """The comment that a file begins with, on one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = [line.removeprefix("#").strip() for line in lines[: next(i for i, s in enumerate(lines) if s[:1] != "#")]]
    return " ".join(first)


def comments(path: Path) -> dict[str, str]:
    """The comment of each option in a file, by its dotted path, and of those in the files of its `defaults:`."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for default in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(default, str) and default != "_self_" and "@" not in default:
            found |= comments(path.with_name(f"{default}.yaml"))
    return found | _own(text)


def _own(text: str) -> dict[str, str]:
    """The comments behind the options in the text of a file; a line of comment alone goes on with the one above."""
    ends: dict[int, int] = {}  # the column at which what YAML reads of a line ends
    for token in yaml.scan(text):
        ends[token.end_mark.line] = max(ends.get(token.end_mark.line, 0), token.end_mark.column)
    paths = _paths(yaml.compose(text))
    found: dict[str, str] = {}
    last = None
    for number, line in enumerate(text.splitlines()):
        last = paths.get(number, last if line.strip() else None)
        behind = line[ends.get(number, 0) :].strip()
        if last is not None and behind.startswith("#"):
            found[last] = f"{found.get(last, '')} {behind.lstrip('# ')}".strip()
    return found


def _paths(node: Any, above: str = "") -> dict[int, str]:
    """Line → the dotted path of the first option that begins there."""
    found: dict[int, str] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{above}.{key.value}".lstrip(".")
            for line, inner in {key.start_mark.line: path, **_paths(value, path)}.items():
                found.setdefault(line, inner if line != key.start_mark.line else path)
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
