"""What Hydra and our own checks say of a configuration, in one line."""

from __future__ import annotations

import re

from hydra.errors import ConfigCompositionException, InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsel import config_groups
from dsel.config_groups import ROOT
from dsel.constraints import like
from dsel.errors import ConfigError
from dsel.secrets import redact


def explain(error: BaseException) -> str:
    """One line for an error about the configuration: Hydra's own words, shortened, with the close match named."""
    if isinstance(error, ConfigError):
        return one_line(error)
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return explain(error.__cause__)
    text, option = str(error), getattr(error, "full_key", None)
    if isinstance(error, OmegaConfBaseException) and option:
        return one_line(f"{option}: {text.splitlines()[0]}")
    unknown = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if unknown:
        key = getattr(error.__cause__, "full_key", None) or unknown["key"]
        known = "; python -m dsel.run --cfg job shows all keys"
        return f"unknown key {key!r}{like(key, _keys())}{known}"
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


def _keys() -> list[str]:
    """The keys of all files in the config groups, dotted: enough to name a close match."""
    keys: list[str] = []
    for path in (ROOT / "conf").rglob("*.yaml"):
        group = path.parent.relative_to(ROOT / "conf").parts
        keys += [".".join([*group, str(key)]) for key in OmegaConf.load(path)]
    return sorted(set(keys))
