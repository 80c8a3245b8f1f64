"""What the record of a run says, as facts: the one place where a record from anywhere becomes values to rely on.

People share runs folders and W&B projects, so a record may hold anything. Nothing in it is ever built, looked up or
resolved: a `_target_` or a `${…}` is text like any other. What a record lacks has an empty value, and what it has is of
the kind that `dsel.record.writer` writes; a record of any other shape is an `OddRecord`, whose message says in one line
why.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dsel.evaluator.units import unit_of
from dsel.files import DIGEST, unsealed

NAME = "record.json"
FORMAT = 1  # of record.json: what is in it, and what it is called
LARGEST = 64 * 2**20  # bytes of a record; real ones have some thousands
DEEPEST = 64  # containers inside each other
MOST_FLOPS = 1e40  # more than anybody computes
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, half characters

EMPTY: Mapping[str, Any] = {
    "status": "unfinished", "started": "", "choices": {}, "config": {}, "pool": {}, "rounds": [], "warmups": [],
    "metrics": {}, "stages": [], "environment": {},
}  # fmt: skip
"""Facts that every record has; their kinds are those of these values."""


class OddRecord(Exception):
    """What was read is no record of a run; the message says why, in one line."""


def read(path: Path) -> dict[str, Any]:
    """The facts in the file at `path`. Raises `OddRecord`."""
    content = whole(path)
    facts = parse(content)
    if "format" in facts or DIGEST in facts:  # older ones have neither
        try:
            unsealed(json.loads(content))
        except ValueError as error:
            raise OddRecord(f"{error}: it has been damaged or changed") from error
    return {name: value for name, value in facts.items() if name != DIGEST}


def headline(facts: Mapping[str, Any]) -> str | None:
    """The metric that stands for a run: the first that is no detail of another; the average where there is one."""
    names = [name for name, metric in facts["metrics"].items() if not metric["detail"]]
    return "average" if "average" in names else next(iter(names), None)


def objective(facts: Mapping[str, Any]) -> float | None:
    """The figure a sweeper looks at: that of the `headline`."""
    name = headline(facts)
    return None if name is None else facts["metrics"][name]["value"]


def whole(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file of at most so many: a pipe would have us wait for ever. Raises `OddRecord`."""
    try:
        found = path.stat()
        _need(stat.S_ISREG(found.st_mode), "not a file")
        _need(found.st_size <= largest, f"{found.st_size / 2**20:,.0f} MB are too much for what it is")
        return path.read_bytes()
    except OSError as error:
        raise OddRecord(f"cannot be read ({error.strerror or error})") from error


def parse(text: str | bytes) -> dict[str, Any]:
    """The facts in JSON. Raises `OddRecord`."""
    return checked(from_json(text))


def from_json(text: Any) -> Any:
    """Plain values out of JSON: finite numbers below 2**63 (`flops` may be more), clean text, no endless nesting.

    Raises `OddRecord`.
    """
    _need(isinstance(text, (str, bytes)), "not JSON")
    try:
        return _plain(json.loads(text, parse_constant=_no_number))
    except json.JSONDecodeError as error:
        raise OddRecord(f"not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    except RecursionError as error:
        raise OddRecord(f"nested more than {DEEPEST} deep") from error
    except ValueError as error:  # bytes that are no text, numbers of thousands of digits
        raise OddRecord(f"not JSON ({str(error).splitlines()[0][:100]})") from error


def clean(text: str) -> str:
    """`text` without what a terminal obeys, XML refuses or UTF-8 cannot write."""
    return NOT_TEXT.sub("\ufffd", text)


def checked(found: Any) -> dict[str, Any]:
    """`found` with what it lacks, when all that it has is of the right kind. Raises `OddRecord`."""
    _need(isinstance(found, dict), "not the record of a run")
    form = found.get("format", FORMAT)  # the first ones do not say
    _need(isinstance(form, int) and not isinstance(form, bool) and form > 0, f"format is {_kind(form)}")
    _need(form <= FORMAT, f"of format {form}, and this dsel reads up to format {FORMAT}: take a later one")
    facts = {**{name: type(value)(value) for name, value in EMPTY.items()}, **found}
    for name, empty in EMPTY.items():
        _need(isinstance(facts[name], type(empty)), f"{name} is {_kind(facts[name])}")
    _need(len(facts["status"]) <= 40, "status is no word")
    for name in ("error", "config_digest", "key"):
        _need(isinstance(facts.get(name, ""), (str, type(None))), f"{name} is {_kind(facts.get(name))}")
    _need(_are(facts["choices"].values(), (str, type(None))), "choices are not names")
    config = facts["config"]
    seed = config.get("seed", 0)
    _need(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0, "config.seed is no whole number")
    _number(facts, "budget", "", least=0)
    _number(facts, "seconds", "", least=0)
    pool = facts["pool"]
    _number(pool, "examples", "pool.", least=0)
    for name in ("name", "fingerprint"):
        _need(isinstance(pool.get(name, ""), str), f"pool.{name} is {_kind(pool.get(name))}")
    clustering = facts.get("clustering")
    if clustering is not None:
        _need(isinstance(clustering, dict), f"clustering is {_kind(clustering)}")
        _number(clustering, "k", "clustering.", least=1, required=True)
    contamination = facts.get("contamination")
    if contamination is not None:
        _need(isinstance(contamination, dict), f"contamination is {_kind(contamination)}")
        for name in ("of", "examples"):
            _number(contamination, name, "contamination.", least=0)
        origins = contamination.get("origins", {})  # the first records do not say
        _need(isinstance(origins, dict), f"contamination.origins is {_kind(origins)}")
        for origin in origins:
            _number(origins, origin, "contamination.origins.", least=0, required=True)
    for name, metric in facts["metrics"].items():
        _need(isinstance(metric, dict), f"metrics.{name} is {_kind(metric)}")
        for part in ("value", "stderr"):
            metric.setdefault(part, None)
            _number(metric, part, f"metrics.{name}.")
        for part, usual in (("higher_is_better", True), ("detail", False)):
            is_so = metric.setdefault(part, usual)
            _need(isinstance(is_so, bool), f"metrics.{name}.{part} is {_kind(is_so)}")
        unit = metric.setdefault("unit", unit_of(str(metric.get("metric"))))  # the first records do not say
        _need(isinstance(unit, str) and len(unit) <= 40, f"metrics.{name}.unit is no word")
    for number, part in enumerate(facts["rounds"], 1):
        _need(isinstance(part, dict), f"round {number} is {_kind(part)}")
        sources = part.setdefault("sources", {})
        _need(isinstance(sources, dict), f"the sources of round {number} are {_kind(sources)}")
        for source in sources:
            _number(sources, source, f"the sources of round {number}: ", least=0, required=True)
        _need(isinstance(part.get("training"), (dict, type(None))), f"the training of round {number} is no mapping")
    for number, part in enumerate(facts["warmups"], 1):
        _need(isinstance(part, dict) and isinstance(part.get("training"), dict), f"warm-up {number} has no training")
    for number, part in enumerate(facts["stages"], 1):
        _need(isinstance(part, dict) and isinstance(part.get("name"), str), f"stage {number} has no name")
        for name in ("seconds", "items"):
            _number(part, name, f"stages.{part['name']}.", least=0)
        _need(isinstance(part.get("artifact"), (str, type(None))), f"the artifact of stage {number} is no name")
        spent = part.get("spent")
        if spent is not None:
            _need(isinstance(spent, dict), f"stages.{part['name']}.spent is {_kind(spent)}")
            for name in ("seconds", "flops", "tokens"):
                _number(spent, name, f"stages.{part['name']}.spent.", least=0)
    _need(_are(facts["environment"].get("gpus", []), str), "environment.gpus are not names")
    _need(isinstance(facts.get("process"), (dict, type(None))), f"process is {_kind(facts.get('process'))}")
    _need(_are(facts.get("overrides", []), str), "overrides are not text")
    return facts


def _plain(value: Any) -> Any:
    """`value` with clean text, without recursion; what JSON has and a record cannot raises `OddRecord`."""
    root: list[Any] = [value]
    level: list[Any] = [root]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for container in level:
            for key, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
                if isinstance(item, str):
                    container[key] = clean(item)
                elif isinstance(item, (dict, list)):
                    below.append(item)
                elif isinstance(item, (int, float)) and not abs(item) < (MOST_FLOPS if key == "flops" else 2**63):
                    _no_number(f"{item:.6g}" if isinstance(item, float) else f"of {item.bit_length()} bits")
            if isinstance(container, dict):
                for key in [key for key in container if NOT_TEXT.search(key)]:
                    container[clean(key)] = container.pop(key)
        if not below:
            return root[0]
        level = below
    raise OddRecord(f"nested more than {DEEPEST} deep")


def _no_number(name: str) -> Any:
    raise OddRecord(f"the number {name} is not one that a run writes")


def _number(
    facts: Mapping[str, Any], name: str, where: str, *, least: float = -math.inf, required: bool = False
) -> None:
    value = facts.get(name)
    if value is None and not required:
        return
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least
    _need(right, f"{where}{name} is {_kind(value)}, not the number it should be")


def _are(values: Any, kinds: Any) -> bool:
    return (
        isinstance(values, Iterable)
        and not isinstance(values, (str, Mapping))
        and all(isinstance(value, kinds) for value in values)
    )


def _kind(value: Any) -> str:
    """What a value is, in a few words that are short whatever it holds."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else repr(value)[:60]


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise OddRecord(" ".join(clean(message[:200]).split()))
