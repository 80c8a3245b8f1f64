"""What a field is declared with, and what is said of a value that it does not allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypedDict

import pytest

from dsel.component import knob
from dsel.constraints import (
    Above,
    Address,
    AtLeast,
    AtMost,
    Below,
    Between,
    Count,
    Device,
    File,
    NotEmpty,
    Seed,
    ShareOrCount,
    Text,
    check_types,
)  # fmt: skip
from dsel.errors import ConfigError


@dataclass
class Inner:
    rate: float = 0.5
    device: str = knob("cpu")


class Adapter(TypedDict):
    rank: Count
    dropout: Annotated[float, AtLeast(0), Below(1)]


class Task(TypedDict, total=False):
    shots: int


class Chooser(Protocol):
    needs: frozenset[str]

    def select(self) -> Any: ...


class First:
    needs = frozenset({"a"})

    def select(self) -> Any:
        return 0


@dataclass
class Typed:
    count: Count = 3
    limit: Count | None = None
    seed: int = 0
    rate: float = 0.5
    name: str = "a"
    on: bool = False
    how: Literal["mean", "sum"] = "mean"
    k: Count | Literal["auto"] = "auto"
    columns: Mapping[str, str] | None = None
    path: str | Path | Sequence[str | Path] | None = None
    anything: Any = None
    few: Seed = 0
    share: Annotated[float, Between(0, 1)] = 0.5
    ratio: Annotated[float, Above(0), AtMost(1)] | None = None
    near: Annotated[float, AtLeast(0), Below(1)] = 0.1
    holdout: Annotated[float, ShareOrCount()] = 0
    title: Text = "a"
    grid: Annotated[Sequence[Annotated[int, AtLeast(2)]], NotEmpty()] | None = None
    files: File | Sequence[File] | None = None
    device: Device | None = None
    url: Address | None = None
    adapter: Adapter | None = None
    tasks: Mapping[Text, Task] = field(default_factory=dict)
    chooser: Chooser = field(default_factory=First)
    inner: Inner = field(default_factory=Inner)
    made: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "g.count=0: wants a whole number from 1"),
        ({"count": 2.0}, "g.count=2.0: wants a whole number from 1"),
        ({"limit": -1}, "g.limit=-1: wants a whole number from 1 or null"),
        ({"limit": "abc"}, "g.limit=abc: wants a whole number from 1 or null"),
        ({"seed": 1.5}, "g.seed=1.5: wants a whole number from 0"),
        ({"seed": True}, "g.seed=true: wants a whole number"),
        ({"seed": -1}, "g.seed=-1: wants a whole number from 0"),
        ({"rate": "fast"}, "g.rate=fast: wants a number"),
        ({"rate": float("nan")}, "g.rate=nan: wants a number"),
        ({"rate": None}, "g.rate=null: wants a number"),
        ({"name": 5}, "g.name=5: wants text; in quotes it is text: \"g.name='5'\""),
        ({"on": "yes"}, "g.on=yes: wants true or false"),
        ({"how": "max"}, "g.how=max: wants one of mean, sum"),
        ({"how": "meen"}, "g.how=meen: wants one of mean, sum (did you mean mean?)"),
        ({"how": None}, "g.how=null: wants one of mean, sum"),
        ({"k": [1]}, "g.k=[1]: wants a whole number from 1 or auto"),
        ({"k": "autos"}, "g.k=autos: wants a whole number from 1 or auto (did you mean auto?)"),
        ({"k": True}, "g.k=true: wants a whole number from 1 or auto"),
        ({"columns": ["prompt"]}, "g.columns=[prompt]: wants a mapping of text to text or null"),
        ({"columns": {"prompt": ["a", "b"]}}, "g.columns={prompt: [a, b]}: wants a mapping of text to text or null"),
        ({"path": 5}, "g.path=5: wants a path, a list of paths or null"),
        ({"path": ["a", None]}, "g.path=[a, null]: wants a path, a list of paths or null"),
        ({"seed": 2**63}, "g.seed=9223372036854775808: too large a number; wants a whole number from 0"),
        ({"rate": 1e300}, "g.rate=1e+300: too large a number; wants a number"),
        ({"rate": float("inf")}, "g.rate=inf: wants a number"),
        ({"few": 2**32}, "g.few=4294967296: wants a whole number from 0, below 4294967296"),
        ({"share": 1.1}, "g.share=1.1: wants a number from 0 to 1"),
        ({"ratio": 0}, "g.ratio=0: wants a number above 0, at most 1 or null"),
        ({"near": 1}, "g.near=1: wants a number from 0, below 1"),
        ({"holdout": 1.5}, "g.holdout=1.5: wants a number: a fraction below 1 or a whole number of examples"),
        ({"title": " "}, "g.title=' ': wants text, not empty"),
        ({"grid": []}, "g.grid=[]: wants a list of whole numbers from 2, not empty or null"),
        ({"grid": [4, 1]}, "g.grid=[4, 1]: wants a list of whole numbers from 2"),
        ({"files": ""}, "g.files='': wants a path"),
        ({"files": [""]}, "g.files=['']: wants a path"),
        ({"device": "gpu"}, "g.device=gpu: wants text such as cpu, cuda"),
        ({"url": "localhost:8000"}, "g.url=localhost:8000: wants text such as https://"),
        ({"adapter": {"rang": 1}}, "g.adapter.rang=1: unknown (did you mean rank?); there are rank, dropout"),
        ({"adapter": {"rank": 8}}, "g.adapter={rank: 8}: set dropout; there are rank, dropout"),
        ({"adapter": {"rank": 0, "dropout": 0.1}}, "g.adapter.rank=0: wants a whole number from 1"),
        ({"adapter": [1]}, "g.adapter=[1]: wants a mapping with rank, dropout or null"),
        ({"tasks": {"a": {"shots": -1}}}, "g.tasks.a.shots=-1: wants a whole number from 0"),
        ({"tasks": {"a": {"shot": 1}}}, "g.tasks.a.shot=1: unknown (did you mean shots?)"),
        ({"tasks": {"a": 1}}, "g.tasks.a=1: wants a mapping with shots"),
        ({"tasks": {"": {}}}, "g.tasks, one of its names='': wants text"),
        ({"chooser": Inner()}, "g.chooser=Inner: wants a Chooser (it has no needs, select)"),
        ({"inner": Inner(rate="x")}, "g.inner.rate=x: wants a number"),
        ({"inner": 3}, "g.inner=3: wants an Inner"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_option(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_types(Typed(**change), "g")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_values_of_the_right_types_pass() -> None:
    check_types(Typed(), "g")
    check_types(
        Typed(
            limit=2, rate=1, how="sum", k=4, columns={"a": "b"}, path=["a", Path("b")], anything=object(), share=1,
            ratio=1, near=0, holdout=20.0, grid=[2], files=["a", Path("b")], device="cuda:1", url="http://localhost:80",
            adapter={"rank": 8, "dropout": 0}, tasks={"a": {}},
        ),
        "g",
    )  # fmt: skip


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(ConfigError) as caught:
        check_types(Typed(rate="x" * 10_000), "g")  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200
