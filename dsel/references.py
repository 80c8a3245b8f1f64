"""A configuration refers to secrets and holds none: `${oc.env:NAME}` where a key belongs, or it is refused.

That is seen to before anything is written: Hydra copies configurations and command lines to several files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dsel.errors import ConfigError
from dsel.secrets import PLAIN_HEADERS, QUERY, USER, is_secret, variables

PLAIN_OPTIONS = ("data.path", "data.columns")  # mappings with names of the user's own
REFERENCE = re.compile(r"\$\{(?P<what>[^{}]*)\}")
REFERRED = "\x01"  # stands for a reference


def refuse(config: Any) -> None:
    """Raise `ConfigError` for a secret that stands itself in a configuration whose references are not resolved.

    The message names the option, not the secret.
    """
    if isinstance(config, DictConfig):
        config = OmegaConf.to_container(config, resolve=False)
    for place in _literals(config, "", False):
        raise ConfigError(
            f"{place}: no key or password here, it would be written down: put it in an environment variable and give "
            f"that one's name, as in {place}='${{oc.env:NAME}}'"
        )


def refuse_overrides(overrides: Sequence[str]) -> None:
    """`refuse`, for a command line."""
    for text in overrides:
        name, equals, raw = text.partition("=")
        if not equals:
            continue
        try:
            override = OverridesParser.create().parse_override(text)
            values = list(override.sweep_iterator()) if override.is_choice_sweep() else [_plain(override.value())]
        except (HydraException, AttributeError, TypeError, ValueError):  # Hydra says itself what is wrong with it
            values = [raw]
        for value in values:
            value = value.strip("'\"") if isinstance(value, str) else value
            for part in reversed(name.lstrip("+~").split(".")):
                value = {part: value}
            refuse(value)


class Before(Callback):
    """Hydra's callback before a run or a sweep: ends the program where `look` raises a `ConfigError`.

    (Hydra makes a warning of an exception in a callback, but not of this one.)
    """

    look: Callable[[DictConfig], object]

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self.look(config)
        except ConfigError as error:
            sys.stderr.write(f"dsel: {error}\n")
            sys.exit(2)

    on_multirun_start = on_run_start


class NoSecrets(Before):
    """Before a configuration file that holds a secret is used."""

    look = staticmethod(refuse)


def _literals(value: Any, place: str, secret: bool) -> Iterator[str]:
    """The places of secrets in a configuration that are no references; the variables of those that are, are noted."""
    if isinstance(value, Mapping) and place not in PLAIN_OPTIONS:
        headers = place.lower().endswith("headers")
        for name, item in value.items():
            own = is_secret(str(name)) or (headers and str(name).lower() not in PLAIN_HEADERS)
            yield from _literals(item, f"{place}.{name}".lstrip("."), secret or own)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _literals(item, place, secret)
    elif isinstance(value, str):
        references = [match["what"] for match in REFERENCE.finditer(value)]
        text = REFERENCE.sub(REFERRED, value)
        parts = [text] if secret or re.match("(Bearer|Basic) [^ ]+$", text) else []
        if "://" in text:
            parts += [match["password"] or match["user"] for match in USER.finditer(text)]
            parts += [match["value"] for match in QUERY.finditer(text)]
        if parts:
            names = [_variable(what) for what in references]
            if None in names or any(not _refers(part) for part in parts):
                yield place
            variables.update(name for name in names if name)
    elif secret and isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place


def _refers(text: str) -> bool:
    """Whether there is no more to `text` than references and the name of a scheme of authorization."""
    return re.fullmatch(r"(?:(?:bearer|basic|token|key|apikey)\b)?[\s:=\x01]*", text, re.IGNORECASE) is not None


def _variable(what: str) -> str | None:
    """The environment variable of a reference, "" of another one; None where it has a value to fall back on."""
    resolver, _, rest = what.partition(":")
    name, _, fallback = rest.partition(",")
    if resolver.strip() != "oc.env":
        return ""
    return name.strip() if fallback.strip() in ("", "null", "''", '""') else None


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(_plain(name)): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
