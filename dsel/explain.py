"""What Hydra and our own checks say of a configuration, in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from dsel import config_groups
from dsel.config_groups import ROOT
from dsel.errors import ConfigError
from dsel.secrets import redact


def explain(error: BaseException) -> str:
    """One line for an error about the configuration: Hydra's own words, shortened, with the close match named."""
    text = str(error)
    if isinstance(error, ConfigError):
        return one_line(error)
    unknown = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if unknown:
        key = unknown["key"]
        known = "; python -m dsel.run --cfg job shows all keys"
        return f"unknown key {key!r}{close(key, _keys())}{known}"
    missing = re.search(r"Could not find '(?P<group>[^']+)/(?P<name>[^/']+)'", text)
    if missing:
        options = config_groups.options(missing["group"])
        listed = f"; there are {', '.join(options)}" if options else ""
        return f"{missing['group']}={missing['name']}: no such option{close(missing['name'], options)}{listed}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    return one_line(text)


def one_line(error: object) -> str:
    """The text of an error without line breaks and without Hydra's advice on tracebacks."""
    text = str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return redact(" ".join(lines))


def close(name: str, known: Sequence[str]) -> str:
    """` (did you mean …?)` when something known is close to `name`."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _keys() -> list[str]:
    """The keys of all files in the config groups, dotted: enough to name a close match."""
    keys: list[str] = []
    for path in (ROOT / "conf").rglob("*.yaml"):
        group = path.parent.relative_to(ROOT / "conf").parts
        keys += [".".join([*group, str(key)]) for key in OmegaConf.load(path)]
    return sorted(set(keys))
