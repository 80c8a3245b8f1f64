"""Command lines in Hydra's grammar: paths it would stumble over are put in quotes, or named with what to do."""

from __future__ import annotations

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dsel.errors import ConfigError

TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,\[\]{}'"]+""")
KEY = re.compile(r"\s*\w+:\s*", re.ASCII)  # of an entry of a mapping


def readable(argument: str) -> str:
    """An override as Hydra can read it: `~` and signs of other scripts than ASCII are in quotes.

    Raises:
        ConfigError: a value that only quotes of the user's own can make text of. What may be meant is not guessed.
    """
    key, is_override, value = argument.partition("=")
    if not is_override or argument.startswith("-") or _parses(argument):
        return argument
    mended = f"{key}={TOKEN.sub(lambda m: _quoted(m[0], mapping=value.startswith('{')), value)}"
    if _parses(mended):
        return mended
    text = value.replace("\\", "\\\\").replace("'", "\\'")
    if not _parses(f"{key}='{text}'"):
        return argument  # it is the key: Hydra says so
    shell = re.sub(r'(["$`\\])', r"\\\1", text)
    raise ConfigError(
        f"{argument}: some of these signs are Hydra's own, as = ( ) [ ] {{ }} # ' and commas are; "
        f"quote the value for it: \"{key}='{shell}'\""
    )


def _quoted(token: str, *, mapping: bool) -> str:
    """A token between commas and brackets, quoted where it holds signs that Hydra knows nothing of."""
    start = found[0] if mapping and (found := KEY.match(token)) else token[: len(token) - len(token.lstrip())]
    text = token[len(start) :].rstrip()
    if token[0] in "'\"" or (text.isascii() and "~" not in text):
        return token
    if re.search(r"[=()#;&!<>^`]", text):  # signs of its own as well
        return token
    return f"{start}'{text}'" + token[len(start) + len(text) :]


def _parses(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True
