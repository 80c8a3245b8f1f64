"""What an experiment asks of an evaluator, and what evaluators return."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dsel.cache import Cache
from dsel.constraints import shown
from dsel.errors import need
from dsel.evaluator.units import SHARE
from dsel.pool import Message, Pool
from dsel.shards import Map
from dsel.snapshot import Snapshot


class Subject(Protocol):
    """The model that is evaluated, as it stands: what evaluators ask of a learner."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def model(self) -> Any:
        """The model in memory, in evaluation mode."""

    @property
    def engine(self) -> Map:
        """Has many rows read by workers."""

    def snapshot(self) -> Snapshot:
        """The model as plain data, of which workers are made (`dsel.questions`)."""
        ...

    def generate(self, prompts: Sequence[list[Message]], *, max_new_tokens: int = 512) -> list[str]:
        """Its answer to each conversation, up to the end of the turn, greedily."""
        ...

    def nll(self, conversations: Sequence[list[Message]], *, max_length: int = 2048) -> npt.NDArray[np.float64]:
        """Mean loss over the tokens of the assistant turns of each conversation, in nats; NaN where there is none."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """How the model is measured that a run ends with.

    One that knows what it asks has a method `texts(heldout, cache) -> Asked` too: they are looked for in the pool
    (`data.decontaminate`). It fetches nothing.
    """

    evaluates: bool

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""

    def need_tasks(self, cache: Cache) -> None:
        """Raise `ConfigError` for a task that cannot be had, before anything is trained."""

    def evaluate(self, learner: Subject, pool: Pool, heldout: Pool, cache: Cache, folder: Path) -> dict[str, Metric]:
        """Figures by name; details of them go to the run's `folder`."""
        ...


@dataclass(frozen=True)
class Metric:
    """One figure with its standard error (NaN where there is none).

    n: examples it is over. detail: a part of another figure, which summaries leave out. unit: what the value counts
    (`dsel.evaluator.units`), by which reports scale and name it.
    """

    value: float
    stderr: float
    metric: str
    n: int | None = None
    shots: int | None = None
    higher_is_better: bool = True
    detail: bool = False
    unit: str = SHARE

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Asked:
    """What an evaluator asks: texts by name. missing: tasks whose texts are not at hand."""

    texts: Mapping[str, str]
    missing: Sequence[str] = ()


def need_metrics(evaluator: Any, returned: Any = None) -> None:
    """Raise `ConfigError` for what is no `Metric` by a name: as `evaluate` is declared, or as it `returned`."""
    wants = f"{type(evaluator).__name__}.evaluate returns dict[str, Metric] (dsel.evaluator.base)"
    if returned is None:
        declared = inspect.signature(type(evaluator).evaluate).return_annotation
        need(declared is inspect.Signature.empty or "Metric" in str(declared), f"{wants}, not {declared}")
        return
    need(isinstance(returned, Mapping), f"{wants}, not {shown(returned)}")
    for name, metric in returned.items():
        need(isinstance(name, str) and isinstance(metric, Metric), f"{wants}; its {name} is {shown(metric)}")


def average(metrics: Mapping[str, Metric]) -> Metric:
    """Unweighted mean over tasks of one unit and direction; its standard error takes the tasks as independent."""
    k = len(metrics)
    stderr = math.sqrt(sum(m.stderr**2 for m in metrics.values())) / k
    like = next(iter(metrics.values()))
    value = sum(m.value for m in metrics.values()) / k
    return Metric(value, stderr, "mean over tasks", higher_is_better=like.higher_is_better, unit=like.unit)
