"""What a composed configuration describes: the settings at its top, and a component for each group."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dsel import config_groups
from dsel.config_groups import GROUPS
from dsel.constraints import AtLeast, Seed, Text, check_types, like, shown
from dsel.errors import ConfigError, need
from dsel.references import Before
from dsel.remote import is_url, parts

MAY_BE_NULL = ("experiments", "sweeps")
BESIDE = ("report",)  # what a run has no use for


@dataclass(frozen=True)
class Settings:
    """What stands at the top of a configuration beside the groups."""

    budget: float
    seed: Seed
    runs: Text
    cache: Text
    scratch: Text
    rerun: bool
    plan: bool
    plan_for: Sequence[Annotated[float, AtLeast(1)]]


def need_names(overrides: Iterable[str]) -> None:
    """Raise `ConfigError` for an override that gives a group anything but the name of one of its files.

    Hydra would fail with a traceback, or make one of several files.
    """
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            continue  # Hydra says itself what is wrong with it
        group = override.key_or_group
        need(bool(group), f"{text}: names no option; give option=value")
        first = group.partition("/")[0]
        if override.is_delete() or override.is_sweep_override() or first not in (*GROUPS, *MAY_BE_NULL):
            continue
        value = override.value()
        listed = config_groups.options(group)
        by_options = isinstance(value, Mapping) and bool(listed)  # Hydra sets each of them
        if not listed or by_options or (isinstance(value, str) and value) or (value is None and first in MAY_BE_NULL):
            continue
        raise ConfigError(f"{group}={shown(_plain(value))}: wants one of {', '.join(listed)}{like(value, listed)}")


def settings(config: DictConfig) -> Settings:
    """The settings of a configuration.

    Raises:
        ConfigError: one is missing or is not what it may be; or there is an option that nothing knows or refers to.
    """
    known = [field.name for field in fields(Settings)]
    for name in (*known, *GROUPS):
        need(name in config, f"{name} is not set: every run needs one")
    text = OmegaConf.to_yaml(config, resolve=False)
    for name in map(str, config):
        ours = name in (*known, *GROUPS, *BESIDE, "hydra") or f"${{{name}" in text  # a variable of the user's own
        there = f"there are {', '.join(known)} and the groups {', '.join(GROUPS)}"
        need(ours, f"{name}={shown(_plain(config[name]))}: unknown{like(name, (*known, *GROUPS))}; {there}")
    found = Settings(**{name: _plain(config[name]) for name in known})
    check_types(found)
    for name in ("runs", "cache"):
        given = getattr(found, name)
        advice = f"a URL has two slashes, and a folder of this name would be ./{given}"  # a Path has eaten one
        need(re.match(r"[a-z0-9]{2,}:/(?!/)", given) is None, f"{name}={given}: {advice}")
        if is_url(given):
            parts(given, name)
    return found


def component(config: DictConfig, group: str) -> Any:
    """The component that a group's section of a configuration describes.

    Raises:
        ConfigError: the section has no class, one that cannot be had, or options that the class does not know.
    """
    from hydra.utils import instantiate

    section = config[group]
    _check_section(OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section, group)
    return instantiate(config[group], _convert_="all")


class Checked(Before):
    """Before folders get names that are made of settings."""

    look = staticmethod(settings)


def _check_section(section: Any, name: str) -> None:
    """The same for each section inside it."""
    from hydra.utils import get_object

    if not isinstance(section, Mapping) or not section:
        listed = config_groups.options(name) or ["a section with a _target_"]
        raise ConfigError(f"{name}={shown(section)}: wants one of {', '.join(listed)}")
    need("_target_" in section, f"{name}._target_ is not set: a choice names its class, package.module.Class")
    target = section["_target_"]
    try:
        made = get_object(target)
    except Exception as error:  # whatever a module says while it is imported
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}._target_={shown(target)}: wants the dotted name of a class ({reason})") from error
    _check_options(section, made, name)
    for key, inner in section.items():
        if isinstance(inner, Mapping) and "_target_" in inner:
            _check_section(inner, f"{name}.{key}")


def _check_options(section: Mapping[Any, Any], made: Any, name: str) -> None:
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in section:
        if not str(key).startswith("_") and key not in parameters:
            there = f"there are {', '.join(parameters)}" if parameters else "it has none"
            label = getattr(made, "__name__", made)
            raise ConfigError(
                f"{name}.{key}={shown(section[key])}: {label} has no such option{like(key, list(parameters))}; {there}"
            )
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in section]
    need(not missing, f"{name}.{missing[0] if missing else ''} is not set: it has no default")


def _plain(value: Any) -> Any:
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=False)
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
