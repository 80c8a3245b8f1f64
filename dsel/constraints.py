"""What the options of a component may be: declared on its fields, checked once, before anything loads.

    epochs: Annotated[float, Above(0)] = 3
    schedule: Literal["linear", "cosine"] = "linear"
    lora: LoRA | None = None                # a TypedDict: these keys, each of its own type

An `int` is a count, a size or a seed: none is negative. A component's `check` is left with what concerns several
options, files, keys and packages.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from dsel.errors import ConfigError

LARGEST = 2**63  # what numbers stay below, as 64 bits hold them


@dataclass(frozen=True)
class Above:
    """A number above `limit`."""

    limit: float

    def holds(self, value: Any) -> bool:
        return bool(value > self.limit)

    def __str__(self) -> str:
        return f" above {self.limit:g}"


@dataclass(frozen=True)
class AtLeast:
    """A number that is `limit` or more."""

    limit: float

    def holds(self, value: Any) -> bool:
        return bool(value >= self.limit)

    def __str__(self) -> str:
        return f" from {self.limit:g}"


@dataclass(frozen=True)
class Below:
    """A number below `limit`."""

    limit: float

    def holds(self, value: Any) -> bool:
        return bool(value < self.limit)

    def __str__(self) -> str:
        return f", below {self.limit:.10g}"


@dataclass(frozen=True)
class AtMost:
    """A number that is `limit` or less."""

    limit: float

    def holds(self, value: Any) -> bool:
        return bool(value <= self.limit)

    def __str__(self) -> str:
        return f", at most {self.limit:g}"


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both of them included."""

    low: float
    high: float

    def holds(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f" from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class ShareOrCount:
    """A fraction below 1, or a whole number of examples."""

    def holds(self, value: Any) -> bool:
        return bool(0 <= value < 1 or (value >= 1 and float(value).is_integer()))

    def __str__(self) -> str:
        return ": a fraction below 1 or a whole number of examples"


@dataclass(frozen=True)
class NotEmpty:
    """Text with something in it, or a list or mapping with at least one entry."""

    def holds(self, value: Any) -> bool:
        return bool(str(value).strip()) if isinstance(value, (str, Path)) else len(value) > 0

    def __str__(self) -> str:
        return ", not empty"


@dataclass(frozen=True)
class Matches:
    """Text of a `pattern`, all of it; `words` say what that is."""

    pattern: str
    words: str

    def holds(self, value: Any) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return f" such as {self.words}"


@dataclass(frozen=True)
class Called:
    """Words for a type that a message is to use instead of its name."""

    words: str

    def holds(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return self.words


CONSTRAINTS = (Above, AtLeast, Below, AtMost, Between, ShareOrCount, NotEmpty, Matches, Called)

Count = Annotated[int, AtLeast(1)]
"""The type of a field that is a whole number above 0; `int` is one of 0 or above."""
Seed = Annotated[int, Below(2**32)]
"""What all the libraries' generators of random numbers take."""
Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1)]
Text = Annotated[str, NotEmpty()]
File = Annotated[str, NotEmpty()] | Annotated[Path, NotEmpty()]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Turn = Literal["first", "last"]
Device = Annotated[str, Matches(r"(cpu|cuda|mps|xpu|npu|hpu)(:\d+)?", "cpu, cuda, cuda:1 or mps")]
Address = Annotated[str, Matches(r"https?://[^\s/]+\S*", "https://host/v1")]


def check_types(component: Any, option: str = "") -> None:
    """Check the fields of a dataclass, and of those that are in it, against what they are declared with.

    Args:
        component: A dataclass object.
        option: Its name in the configuration, which the names of its fields are below.

    Raises:
        ConfigError: for the first that does not fit: the option, its value and what is wanted.
    """
    kind: Any = type(component)
    hints, inner = _hints(kind), []
    for field in dataclasses.fields(component):
        if not field.init:
            continue
        value, name = getattr(component, field.name), f"{option}.{field.name}".lstrip(".")
        said = fault(value, hints[field.name], name)
        if said is not None:
            raise ConfigError(said)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            inner.append((value, name))
    for value, name in inner:
        check_types(value, name)


def fault(value: Any, hint: Any, name: str) -> str | None:
    """What is wrong with the `value` of the option `name`, in one line; None where it is what `hint` wants."""
    if fits(value, hint):
        return None
    inside = next((each for each in _members(hint) if _has_keys(each)), None)
    if inside is not None and isinstance(value, Mapping):
        return _fault_inside(value, inside, name)
    kinds = [kind for kind in (str, int, float) if any(_base(each) is kind for each in _members(hint))]
    text = shown(value)
    size = isinstance(value, (int, float)) and not isinstance(value, bool)
    if size and math.isfinite(value) and abs(value) >= LARGEST and {int, float} & set(kinds):
        return f"{name}={text}: too large a number; wants {words(hint)}"
    quoted = f"; in quotes it is text: \"{name}='{value}'\"" if size and fits(str(value), hint) else ""
    return f"{name}={text}: wants {words(hint)}{_lacks(value, hint)}{quoted}{like(value, _choices(hint))}"


def like(value: Any, known: Sequence[Any]) -> str:
    """` (did you mean …?)` when one of the `known` is close to `value`, else nothing."""
    near = difflib.get_close_matches(str(value), [each for each in known if isinstance(each, str)], n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type and in the range that `hint` declares."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if hint is None or hint is type(None):
        return value is None
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin is Annotated:
        return fits(value, inner[0]) and all(c.holds(value) for c in inner[1:] if isinstance(c, CONSTRAINTS))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and -LARGEST < value < LARGEST  # neither infinite nor no number
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(fits(each, inner[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if is_typeddict(hint):
        known = _hints(hint)
        whole = isinstance(value, Mapping) and hint.__required_keys__ <= set(value) <= set(known)
        return whole and all(fits(each, known[key]) for key, each in value.items())
    if getattr(hint, "_is_protocol", False):
        return all(hasattr(value, name) for name in _of_protocol(hint))
    return isinstance(value, origin or hint)


def words(hint: Any, many: bool = False) -> str:
    """What a type is called in a message: `a whole number from 1 or null`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = [each for each in inner if each is not type(None)]
        paths = {str, Path} <= {_base(each) for each in rest}
        found = ["paths" if many else "a path"] if paths else []
        found += [words(each, many) for each in rest if not paths or _base(each) not in (str, Path)]
        found += ["null"] if type(None) in inner else []
        return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin is Annotated:
        limits = [each for each in inner[1:] if isinstance(each, CONSTRAINTS) and not (many and each == NotEmpty())]
        if any(isinstance(each, Called) for each in limits):
            text = ""
        elif inner[0] is int and any(isinstance(each, (Above, AtLeast, Between)) for each in limits):
            text = "whole numbers" if many else "a whole number"
        else:
            text = words(inner[0], many)
        return text + "".join(map(str, limits))
    if origin is Sequence:
        return f"{'lists' if many else 'a list'} of {words(inner[0], many=True)}"
    if origin is Mapping:
        key, value = (words(each, many=True) for each in inner)
        return f"{'mappings' if many else 'a mapping'} of {key} to {value}"
    if is_typeddict(hint):
        return f"{'mappings' if many else 'a mapping'} with {', '.join(_hints(hint))}"
    one, several = {
        int: ("a whole number from 0", "whole numbers from 0"),
        float: ("a number", "numbers"),
        bool: ("true or false", "true or false"),
        str: ("text", "text"),
        Path: ("a path", "paths"),
        Any: ("anything", "anything"),
    }.get(hint, (f"{_article(hint)} {getattr(hint, '__name__', hint)}",) * 2)
    return several if many else one


def shown(value: Any) -> str:
    """A value as it is written on the command line, cut where it is long."""
    text = str(value)
    if value is None or isinstance(value, bool):
        text = "null" if value is None else text.lower()
    elif isinstance(value, (list, tuple, set, frozenset)):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, str) and not value.strip():
        text = f"'{value}'"
    elif dataclasses.is_dataclass(value):
        text = type(value).__name__
    return text if len(text) <= 100 else f"{text[:97]}…"


def _fault_inside(value: Mapping[Any, Any], hint: Any, name: str) -> str:
    """The first fault of a mapping whose entries have types of their own."""
    if get_origin(hint) is Mapping:
        key_type, entry = get_args(hint)
        for key, each in value.items():
            said = fault(key, key_type, f"{name}, one of its names") or fault(each, entry, f"{name}.{key}")
            if said is not None:
                return said
    known = _hints(hint)
    listed = f"there are {', '.join(known)}"
    for key in value:
        if key not in known:
            return f"{name}.{key}={shown(value[key])}: unknown{like(key, list(known))}; {listed}"
    missing = [key for key in known if key in hint.__required_keys__ and key not in value]
    if missing:
        return f"{name}={shown(value)}: set {' and '.join(missing)}; {listed}"
    return next(said for key in value if (said := fault(value[key], known[key], f"{name}.{key}")))


def _has_keys(hint: Any) -> bool:
    return is_typeddict(hint) or (get_origin(hint) is Mapping and is_typeddict(get_args(hint)[1]))


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _choices(hint: Any) -> list[Any]:
    return [choice for each in _members(hint) if get_origin(each) is Literal for choice in get_args(each)]


def _article(hint: Any) -> str:
    return "an" if getattr(hint, "__name__", str(hint))[:1] in "AEIOU" else "a"


def _lacks(value: Any, hint: Any) -> str:
    """What an object has not that a protocol asks for: for the authors of components."""
    if not getattr(hint, "_is_protocol", False) or not dataclasses.is_dataclass(value):
        return ""
    return f" (it has no {', '.join(name for name in _of_protocol(hint) if not hasattr(value, name))})"


def _of_protocol(hint: Any) -> list[str]:
    """The names that a component has to have for a protocol."""
    parts = [vars(each) for each in hint.__mro__ if getattr(each, "_is_protocol", False)]
    names = {name for part in parts for name in (*part, *part.get("__annotations__", ()))}
    return sorted(name for name in names if not name.startswith("_"))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
