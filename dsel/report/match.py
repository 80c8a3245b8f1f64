"""Which runs a cell holds, and which command fills it: both by what Hydra composes of the cell's overrides.

A cell is a configuration: that of the experiment with the overrides of the cell's row and column. The runs in it are
those whose recorded configuration is the same but for the seed, however they were asked for (on the command line, by a
sweep, with another experiment's file). Knobs, the tracker, the engine and places (`runs`, `cache`) do not count, nor
does what the selector never reads (the embedder of a random choice), nor options that only one of the two knows: those
that came or went between versions.

Only our own configuration is ever composed, and only its classes are looked at. What is recorded may come from anybody:
it is compared with ours, value by value, and nothing of it is built.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsel import config_groups
from dsel.config_groups import GROUPS, NO_RESULT
from dsel.record.reader import RunFolder
from dsel.record.settings import differences, is_setting, override
from dsel.report.spec import Overrides, keys
from dsel.resources import makers
from dsel.secrets import redact

log = logging.getLogger(__name__)

COMPARED = tuple(group for group in GROUPS if group not in NO_RESULT)


@dataclasses.dataclass(frozen=True)
class Composed:
    """A configuration before its interpolations are resolved, the chosen options, and the experiment's `report:`."""

    config: DictConfig
    choices: Mapping[str, str]
    report: dict[str, Any]


class Composer:
    """What Hydra composes of `base` and more overrides; each is composed once.

    base: the experiment and what else all runs have, such as `experiments=laptop` and `model=smollm2_135m`.
    adopted: settings (dotted path: plain value) that all runs were recorded with, set without Hydra.
    """

    def __init__(self, base: Sequence[str], adopted: Mapping[str, Any] | None = None) -> None:
        self.base = tuple(base)
        self.adopted = dict(adopted or {})
        self.composed = cache(self._composed)
        self.alone = self.composed if len(self.base) < 2 else Composer(self.base[:1]).composed
        self.wanted = cache(self._wanted)
        self.needs = cache(self._needs)
        self._named: set[tuple[str, str]] = set()

    @property
    def report(self) -> dict[str, Any]:
        """The `report:` section as it is written, interpolations included; empty without one."""
        return self.composed(()).report

    @property
    def evaluator(self) -> dict[str, Any]:
        """The evaluator as the experiment's file has it, whatever else the runs have."""
        return OmegaConf.to_container(self.alone(()).config.evaluator, resolve=True)  # type: ignore[return-value]

    def setting(self, path: str, overrides: Overrides = ()) -> Any:
        """The value at a dotted path, or the choice of a config group."""
        composed = self.composed(overrides)
        return composed.choices[path] if path in composed.choices else OmegaConf.select(composed.config, path)

    def matches(self, run: RunFolder, overrides: Overrides) -> bool:
        """Whether `run` is one of the configuration with `overrides`."""
        return not any(differences(self.wanted(overrides, run.seed), run.facts["config"]))

    def coordinates(self, run: RunFolder, at: Overrides = (), *, unread: bool = False) -> Overrides | None:
        """The overrides that make `run` out of the configuration with `at`; None where none do (an option is gone).

        unread: also those of what its selector never reads.
        """
        found = self.recorded(run, at, unread=unread)
        if found is None:
            return None
        choices, settings = found
        return (*choices, *(override(path, value) for path, value in settings.items()))

    def recorded(
        self, run: RunFolder, at: Overrides = (), *, unread: bool = False
    ) -> tuple[Overrides, dict[str, Any]] | None:
        """`coordinates` in two: the options chosen, all of them ours, and the settings (dotted path: value)."""
        try:
            return self._recorded(run, at, unread)
        except (HydraException, OmegaConfBaseException):  # what `at` sets is no option of what the run has chosen
            return None

    def _recorded(self, run: RunFolder, at: Overrides, unread: bool) -> tuple[Overrides, dict[str, Any]] | None:
        chosen = run.facts["choices"]
        found: Overrides = ()
        for nested in (False, True):  # options of a nested group are there once its parent is chosen
            here = self.composed(at + found).choices
            for group in sorted(here, key=lambda name: COMPARED.index(_group(name))):
                name = chosen.get(group)
                if bool(re.search("[/@]", group)) != nested or name in (None, here[group]):
                    continue
                if name not in _options(group):
                    return None
                found += (f"{group}={name}",)
        read = self.wanted(at + found, run.seed, unread)
        found = tuple(o for o in found if _group(o) in read)
        settings = {}
        for path, value, ours in differences(self.wanted(at + found, run.seed, unread), run.facts["config"]):
            if not is_setting(path, value, ours):
                if (run.where, path) not in self._named:
                    log.warning("left out of the tables %s: its %s is no setting but %.80r", run.where, path, value)
                self._named.add((run.where, path))
                return None
            settings[path] = value
        return found, settings

    def command(self, overrides: Overrides, seeds: Sequence[int], *, multirun: bool = False) -> str:
        """The command that runs the configuration with `overrides` for each of `seeds`.

        multirun: `overrides` are of several runs, as in `selector=random,kmq`.
        """
        many = ["-m"] if multirun or len(seeds) > 1 else []
        seed = f"seed={','.join(map(str, seeds))}"
        adopted = [override(path, value) for path, value in self.adopted.items()]
        return shlex.join(["python", "-m", "dsel.run", *many, *self.base, *adopted, *overrides, seed])

    def _composed(self, overrides: Overrides) -> Composed:
        config, choices = config_groups.composed([*self.base, *overrides])
        chosen = {group: str(choice) for group, choice in choices.items() if _group(group) in COMPARED}
        section = config.pop("report", None)
        return Composed(config, chosen, OmegaConf.to_container(section, resolve=False) if section else {})  # type: ignore[arg-type]

    def _needs(self, overrides: Overrides) -> frozenset[str]:
        """What the selector of our configuration reads."""
        selector = OmegaConf.to_container(self.composed(overrides).config.selector, resolve=True)
        return frozenset(instantiate(selector, _convert_="all").needs)

    def _wanted(self, overrides: Overrides, seed: int, unread: bool = False) -> dict[str, Any]:
        config = self.composed(overrides).config.copy()
        config.seed = seed
        for path, value in self.adopted.items():
            if OmegaConf.select(config, path, default=config) is not config:  # not an option of what else is chosen
                OmegaConf.update(config, path, value, merge=False)
        found = {group: OmegaConf.to_container(config[group], resolve=True) for group in COMPARED}
        if not unread:
            for group in set(makers()) - set(makers(self.needs(overrides))):
                del found[group]
        return redact({"budget": config.budget, **{group: without_knobs(value) for group, value in found.items()}})


def without_knobs(config: Any) -> Any:
    """`config` without the fields of its components that do not change what comes out (dsel.component.knob)."""
    if not isinstance(config, Mapping):
        return config
    knobs = set()
    if "_target_" in config:
        component = get_class(config["_target_"])
        own = dataclasses.fields(component) if dataclasses.is_dataclass(component) else ()
        knobs = {f.name for f in own if not f.metadata.get("identity", True)}
    return {key: without_knobs(value) for key, value in config.items() if key not in knobs}


def shared(found: Iterable[Overrides], varied: Iterable[str]) -> Overrides:
    """The overrides that all of `found` have, but for those of a key in `varied`, or below one."""
    everywhere = [set(overrides) for overrides in found]
    common = set.intersection(*everywhere) if everywhere else set()
    fixed = tuple(varied)
    return tuple(sorted(o for o in common if not any(_is_below(key, fixed) for key in keys([o]))))


def _is_below(key: str, varied: Sequence[str]) -> bool:
    return any(key == other or key.startswith((f"{other}.", f"{other}/", f"{other}@")) for other in varied)


@cache
def _options(group: str) -> frozenset[str]:
    """The options there are of a config group such as `selector` or `selector/feedback` (`selector@selector.then`)."""
    return frozenset(config_groups.options(group.partition("@")[0]))


def _group(name: str) -> str:
    """`selector` of `selector`, `selector/feedback`, `selector@selector.then` and `selector=kmq`."""
    return re.split("[/@=]", name)[0]
