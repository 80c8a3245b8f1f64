"""What there is to choose and to set: the choices of each config group, their options, and what each option means.

All of it is said in the files in `conf/`, or in those of their `defaults:`, and in the classes that they name: the page
docs/options.md and `dsel help` only show it.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from dsel.config_groups import ROOT

CONF = ROOT / "conf"
AROUND = {"selector/feedback": ["selector=iterative"]}  # what a group needs to be there


@dataclass(frozen=True)
class Option:
    """One option: its values (the usual one, then `choice: value` of each choice that differs), what it may be, and
    what it means, a line for each thing that is said."""

    name: str
    values: Sequence[str]
    wants: str = ""
    meanings: Sequence[str] = ()


@dataclass(frozen=True)
class Described:
    """A class that choices of a group name, what it says of itself, and its options."""

    target: str
    choices: Sequence[str]
    says: str
    options: Sequence[Option]


def roles() -> dict[str, str]:
    """Each group of conf/config.yaml, and what it is for, as it is said there."""
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): \w+ +# (.*)$", text, flags=re.MULTILINE))


def top() -> list[Option]:
    """The options of a run that are in no group."""
    known = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    values = {name: value for name, value in known.items() if name not in ("defaults", "hydra")}
    return _options({"config": values}, {"config": comments(CONF / "config.yaml")})


def described(group: str, names: Sequence[str]) -> list[Described]:
    """The choices called `names` of a group, by the class that they name."""
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = {name: _composed(group, name) for name in names}
    classes: dict[str, list[str]] = {}
    for name, values in composed.items():
        classes.setdefault(values["_target_"], []).append(name)
    found = []
    for target, chosen in classes.items():
        values = {name: _flat(composed[name]) for name in chosen}
        said = {name: comments(CONF / group / f"{name}.yaml") for name in chosen}
        found.append(Described(target, chosen, _docstring(target), _options(values, said, target)))
    return found


def _composed(group: str, name: str) -> dict[str, Any]:
    from hydra import compose
    from omegaconf import OmegaConf

    config = compose("config", overrides=[*AROUND.get(group, ()), f"{group}={name}"])
    return OmegaConf.to_container(OmegaConf.select(config, group.replace("/", ".")), resolve=False)  # type: ignore[return-value]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options without the class; a component inside another is named and not listed again."""
    inner = {name: value for name, value in values.items() if isinstance(value, dict) and "_target_" in value}
    plain = {name: value for name, value in values.items() if name != "_target_" and name not in inner}
    return plain | {name: _Component(value["_target_"]) for name, value in inner.items()}


class _Component(str):
    """The class of a component inside another."""


def _options(
    values: Mapping[str, Mapping[str, Any]], said: Mapping[str, Mapping[str, str]], target: str | None = None
) -> list[Option]:
    """The options of choices of one class; values that differ from most are named."""
    from dsel.constraints import words

    hints = {} if target is None else typing.get_type_hints(_class(target), include_extras=True)
    found = []
    for option in dict.fromkeys(option for each in values.values() for option in each):
        shown = {name: _value(each[option], name) for name, each in values.items() if option in each}
        usual = Counter(shown.values()).most_common(1)[0][0]
        others = [f"{name}: {value}" for name, value in shown.items() if value != usual]
        every = [item for each in said.values() for item in each.items()]
        meanings = [text for path, text in every if path == option]
        meanings += [f"{path}: {text}" for path, text in every if path.startswith(f"{option}.")]
        wants = words(hints[option]) if option in hints else ""
        found.append(Option(option, [usual, *others], wants, list(dict.fromkeys(meanings))))
    return found


def _value(value: Any, choice: str) -> str:
    if isinstance(value, _Component):
        return f"{value}, with all options of it"
    if value == choice:
        return "as the choice is called"
    if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
        return f"of {listed(list(value))}"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("\n", "\\n")


def listed(names: Sequence[str]) -> str:
    """Names, as Markdown has them."""
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
    first = [line.removeprefix("#").strip() for line in takewhile(lambda line: line[:1] == "#", lines)]
    return " ".join(line for line in first if not line.startswith("@package"))


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
