"""What embedding, scoring and choosing would cost for pools of other sizes, on one device and on many."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.engine.local import sharers
from dsel.experiment import Experiment
from dsel.model.flops import passed
from dsel.model.hosted import Hosted
from dsel.peaks import SHARE, Peak
from dsel.resources import RESOURCES, closure
from dsel.show import Table
from dsel.study import Study

log = logging.getLogger(__name__)

DEVICES = (1, 8, 64)
LIMIT = 512  # tokens that are read of a text where nobody says
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.py"]  # of a model on the hub: all but its weights


@dataclass(frozen=True)
class Pace:
    """Seconds that one device takes for a unit, and how they are known."""

    seconds: float
    how: str


@dataclass(frozen=True)
class Device:
    """What is planned for. there: whether this machine has one."""

    name: str
    peak: Peak
    there: bool


@dataclass(frozen=True)
class Part:
    """A stage for pools of several sizes: seconds of one device for each, or None where they are not known.

    shared: whether each of many devices takes an equal share of it; else it is one's, however many there are.
    """

    name: str
    how: str
    seconds: Sequence[float | None]
    shared: bool

    def on(self, size: int, devices: int) -> float | None:
        """Seconds of so many devices, for the pool of that number in the sizes."""
        seconds = self.seconds[size]
        return None if seconds is None else seconds / (devices if self.shared else 1)


@dataclass(frozen=True)
class Forecast:
    """The stages of a selection for pools of several `sizes`; stored: bytes of the embeddings; memory: of choosing."""

    device: Device
    sizes: Sequence[int]
    parts: Sequence[Part]
    stored: Sequence[float]
    memory: Sequence[float]


def forecast(
    experiment: Experiment,
    study: Study,
    sizes: Sequence[int],
    device: Device,
    measured: Callable[[str], Pace | None],
    tokens: Callable[[int], float],
) -> Forecast:
    """What a selection would take, of pools whose examples are like those of `study`. No weights are loaded.

    Args:
        experiment: whose selector chooses, from what it needs.
        study: the pool as it is.
        sizes: of the pools.
        device: the one that there are several of.
        measured: the pace of a stage in earlier runs on this machine, by the stage's name.
        tokens: mean tokens of an example, of which so many are read at most.
    """
    needs = closure(experiment.selector.needs)
    parts = []
    for name in needs:
        found = RESOURCES[name]
        if name in ("embeddings", "quality") and found.exists(study):
            maker = getattr(experiment, found.groups[0])
            pace = reading(maker, device, measured(found.stage), tokens)
            seconds = [None if pace is None else n * pace.seconds for n in sizes]
            parts.append(Part(name, "not measured yet" if pace is None else pace.how, seconds, shared=True))
    d = study.dimensions if study.is_cached("embeddings") else width(experiment.embedder) or study.dimensions
    costs = [experiment.costs(n, d) for n in sizes]
    for name in costs[0]:
        by_all = name == "clustering" and on_all(experiment.clusterer)
        how = "by its operations" + ("" if by_all else "; one GPU, however many there are")
        parts.append(Part(name, how, [c[name].operations / (SHARE * device.peak.float32) for c in costs], by_all))
    kept = 2 if getattr(experiment.embedder, "store", "float32") == "float16" else 4
    stored = [float(kept) * n * d if "embeddings" in needs else 0.0 for n in sizes]
    return Forecast(device, sizes, parts, stored, [max(cost.memory for cost in c.values()) for c in costs])


def reading(maker: Any, device: Device, measured: Pace | None, tokens: Callable[[int], float]) -> Pace | None:
    """What reading an example takes an embedder or scorer: as measured here, else from the weights of its models.

    What a machine without a GPU has measured of a model says nothing of GPUs.
    """
    if measured is not None and (device.there or not hosted(maker)):
        return measured
    operations, says = 0.0, []
    for each in hosted(maker):
        weights = weights_of(each)
        if weights is None:
            return None
        read = tokens(getattr(each, "max_length", None) or LIMIT) * getattr(each, "passes", 1)
        operations += 2 * weights * read
        says.append(f"2 × {weights:.3g} weights × {read:.0f} tokens")
    if not operations:
        return None
    return Pace(operations / (SHARE * device.peak.bfloat16), " + ".join(says))


def sharing(experiment: Experiment, stage: str, units: float, workers: int) -> int:
    """How many of so many workers have a part in a stage of so many units: one, where nothing is cut into shards."""
    for maker in (getattr(experiment, found.groups[0]) for found in RESOURCES.values() if found.stage == stage):
        shards = math.ceil(units / maker.shard_size) if hasattr(maker, "shard_size") else 1
        return max(1, sharers(maker, shards, workers))
    return workers


def hosted(maker: Any) -> list[Any]:
    """The models that a component reads with: its own, or those of components in its fields."""
    inside = [maker, *vars(maker).values()]
    return [each for each in inside if isinstance(each, Hosted) and (each.hub or each.path)]


def on_all(clusterer: Any) -> bool:
    """Whether it clusters on all GPUs of a machine."""
    return hasattr(clusterer, "extra_identity") and clusterer.extra_identity().get("backend") == "faiss"


def weights_of(maker: Any) -> float | None:
    """How many weights a token passes through, or None where that is not known here."""
    model = bare(maker)
    return None if model is None else sum(passed(model))


def width(maker: Any) -> int | None:
    """The dimensions of a model's hidden states, or None where they are not known here."""
    own, models = getattr(maker, "dimensions", None), hosted(maker)
    model = bare(models[0]) if models and own is None else None
    return own or (None if model is None else getattr(model.config.get_text_config(), "hidden_size", None))


def bare(maker: Any) -> Any:
    """A model without its head on torch's meta device: it takes no memory, and no weights are read. None: not known."""
    import torch
    from transformers import AutoConfig, AutoModel

    folder, why = files(maker)
    if folder is not None:
        try:
            with torch.device("meta"):
                config = AutoConfig.from_pretrained(folder, trust_remote_code=maker.trust_remote_code)
                return AutoModel.from_config(config, trust_remote_code=maker.trust_remote_code)
        except Exception as error:  # whatever a model's own code says
            why = " ".join(str(error).split())[:200]
    log.warning("the size of %s is not known: %s", maker.place, why)
    return None


def files(model: Any) -> tuple[Path | None, str]:
    """The folder of a model's configuration and tokenizer, fetched from the hub if need be; or None, and why."""
    place = getattr(model, "built", None) or model.path
    if place is not None:
        return Path(place).expanduser(), ""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model.hub, revision=model.revision, allow_patterns=SMALL_FILES))
    except Exception as error:  # no network, no permission, no such model: there is still much to say
        return None, f"{model.hub} cannot be looked up here ({type(error).__name__})"
    whole = (folder / "config.json").exists() and (folder / "tokenizer_config.json").exists()
    return (folder, "") if whole else (None, f"{model.hub} is here in part only")


# show


def table(found: Forecast) -> Table:
    """What each stage takes by size and devices, all together, and what they are in time of one GPU."""
    columns = [(i, count) for i in range(len(found.sizes)) for count in DEVICES]
    rows: list[Sequence[str] | None] = []
    for part in found.parts:
        seconds = [part.on(*column) for column in columns]
        rows.append((part.name, *("?" if s is None else duration(s) for s in seconds), part.how))
    totals = [sum(part.on(*column) or 0.0 for part in found.parts) for column in columns]
    least = "" if all(None not in part.seconds for part in found.parts) else "≥ "
    spent = [total * count / 3600 for total, (_, count) in zip(totals, columns, strict=True)]
    rows += [None, ("all", *(least + duration(t) for t in totals), "one after the other")]
    rows.append(("GPU hours", *(f"{least}{s:,.{0 if s >= 100 else 2}f}" for s in spent), "time × GPUs"))
    for name, sizes, says in (("vectors", found.stored, "on disk"), ("memory", found.memory, "of one machine")):
        rows.append((name, *(f"{sizes[i] / 1e9:,.3g} GB" if j == 1 else "" for i, j in columns), says))
    device = found.device
    title = f"pools of other sizes, on so many × {device.name}{'' if device.there else ' (there is none here)'}"
    by = (
        f"where nothing is measured, {SHARE:.0%} of the peak: {device.peak.bfloat16:.3g} operations a second (bfloat16)"
    )
    header = ["", *(f"{short(found.sizes[i])}, {count}" for i, count in columns), "how it is known"]
    title += f"; {by}, in choosing of {device.peak.float32:.3g} (float32)"
    return Table(rows, title=title, header=header, align="l" + "r" * len(columns) + "l")


def duration(seconds: float) -> str:
    """The same in a unit that leaves one to three digits."""
    unit, size = next(((u, s) for u, s in (("h", 3600), ("min", 60)) if seconds >= 2 * s), ("s", 1))
    return f"{seconds / size:.1f} {unit}"


def short(n: float) -> str:
    """10,000,000 as 10M."""
    return f"{n / 1e6:g}M" if n >= 1e6 else f"{n:,.0f}"
