"""What Hydra and our own checks say of a configuration, in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsel import config_groups
from dsel.constraints import like
from dsel.errors import ConfigError
from dsel.secrets import redact


def explain(error: BaseException, given: Sequence[str] | None = None) -> str:
    """One line for an error about the configuration: Hydra's own words, shortened, with the close match named.

    given: the overrides that were asked for; those of this process's command line, unless they are named.
    """
    if isinstance(error, ConfigError):
        return one_line(error)
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return explain(error.__cause__, given)
    text, option = str(error), getattr(error, "full_key", None)
    if isinstance(error, OmegaConfBaseException) and option:
        return one_line(f"{option}: {text.splitlines()[0]}")
    unknown = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if unknown:
        key = getattr(error.__cause__, "full_key", None) or unknown["key"]
        return f"unknown key {key!r}{_instead(key, sys.argv[1:] if given is None else given)}"
    missing = re.search(r"Could not find '(?P<group>[^']+)/(?P<name>[^/']+)'", text)
    if missing:
        options = config_groups.options(missing["group"])
        listed = f"; there are {', '.join(options)}" if options else ""
        return f"{missing['group']}={missing['name']}: no such option{like(missing['name'], options)}{listed}"
    merged = re.search(r"Error merging override (.*)", text)
    if merged and "Cannot merge DictConfig with" in str(error.__cause__):
        return one_line(f"{merged[1]}: wants a mapping")
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    return one_line(text)


def one_line(error: object) -> str:
    """The text of an error without line breaks and without Hydra's advice on tracebacks."""
    text = str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return redact(" ".join(lines))


def _instead(key: str, given: Sequence[str]) -> str:
    """What there is in place of `key`, in the configuration of the options that are chosen."""
    config, choices = _chosen(given)
    names = list(_names(config))
    parent, _, last = key.rpartition(".")
    beside = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == parent]
    near = _near(last, beside)
    if near:
        return f" (did you mean {'.'.join(filter(None, [parent, near]))}?)"
    elsewhere = [name for name in names if name.rpartition(".")[2] == last]
    hint = f" (did you mean {elsewhere[0]}?)" if len(elsewhere) == 1 and (not parent or not beside) else ""
    if not beside and choices.get(parent):
        return f"{hint}; {parent}={choices[parent]} has no options{_others(parent, last)}"
    if not beside:
        return f"{hint}; python -m dsel.run --cfg job shows all keys"
    owner = f"{parent}={choices[parent]} has" if choices.get(parent) else f"{parent} has" if parent else "there are"
    return f"{hint}; {owner} {', '.join(beside)}"


def _others(group: str, option: str) -> str:
    """Which choices of a group have an option."""
    from dsel.options import described

    every = described(group, config_groups.options(group))
    having = sorted(choice for each in every if option in (o.name for o in each.options) for choice in each.choices)
    return f"; {', '.join(having)} {'has' if len(having) == 1 else 'have'} {option}" if having else ""


def _near(name: str, known: Sequence[str]) -> str | None:
    """The one that `name` may stand for: `batch` for `batch_size`, `lr` for `learning_rate`, `kk` for `k`."""
    short = [each for each in known if each.startswith(f"{name}_") or "".join(w[:1] for w in each.split("_")) == name]
    return next(iter([*short, *get_close_matches(name, known, n=1, cutoff=0.6)]), None)


def _chosen(given: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The configuration with the options of `given` alone, whatever else is in it, and what is chosen of each group."""
    options = [text for text in given if _is_choice(text)]
    for overrides in (options, []):  # where two options do not go together, the defaults
        try:
            config, choices = config_groups.composed(overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return OmegaConf.to_container(config, resolve=False), choices
    return {}, {}


def _is_choice(text: str) -> bool:
    """Whether an override chooses an option of a group that there is."""
    group, _, name = text.partition("=")
    return name in config_groups.options(group.partition("@")[0].lstrip("+"))


def _names(config: Any, above: str = "") -> Iterator[str]:
    """The dotted keys of a configuration."""
    for key, value in config.items():
        if not str(key).startswith("_"):
            yield f"{above}{key}"
            if isinstance(value, Mapping):
                yield from _names(value, f"{above}{key}.")
