"""Command lines in Hydra's grammar: paths it would stumble over are put in quotes, or named with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dsel.errors import ConfigError

TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,\[\]{}'"]+""")
KEY = re.compile(r"\s*\w+:\s*", re.ASCII)  # of an entry of a mapping


def multirun_first(arguments: Iterable[str]) -> list[str]:
    """The arguments with `-m` before all others: among overrides Hydra's parser takes those after it for unknown."""
    return sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))


def readable(argument: str) -> str:
    """An override as Hydra can read it: `~` and signs of other scripts than ASCII are in quotes.

    Raises:
        ConfigError: a value that only quotes of the user's own can make text of. What may be meant is not guessed.
    """
    key, is_override, value = argument.partition("=")
    if not is_override or argument.startswith("-") or _parses(argument):
        return argument
    quoted = partial(_quoted, mapping=value.startswith("{"))
    mended = f"{key}={TOKEN.sub(quoted, value)}"
    if _parses(mended):
        return mended
    advised = f"{key}={TOKEN.sub(partial(quoted, always=True), value)}"
    known = "~[]{}"  # by us, and in a list or mapping
    if value[:1] not in ("[", "{") or not _parses(advised):
        advised, known = f"{key}={_as_text(value)}", "~"
    if not _parses(advised):
        return argument  # it is the key: Hydra says so
    signs = [s for s in dict.fromkeys(value) if s.isascii() and s not in known and not _parses(f"key=a{s}b")]
    what = f"text with {' '.join(signs)}" if signs else "this text"
    shell = re.sub(r'(["$`\\])', r"\\\1", advised)
    raise ConfigError(f'{argument}: Hydra\'s grammar wants {what} in quotes; quote the value for it: "{shell}"')


def _quoted(between: re.Match[str], *, mapping: bool, always: bool = False) -> str:
    """A token between commas and brackets, quoted where it holds signs that Hydra knows nothing of, or `always`."""
    token = between[0]
    start = found[0] if mapping and (found := KEY.match(token)) else token[: len(token) - len(token.lstrip())]
    text = token[len(start) :].rstrip()
    if token[0] in "'\"" or not text or (text.isascii() and "~" not in text and not always):
        return token
    if re.search(r"[=()#;&!<>^`]", text) and not always:  # signs of its own as well
        return token
    return f"{start}{_as_text(text)}" + token[len(start) + len(text) :]


def _as_text(value: str) -> str:
    return "'{}'".format(value.replace("\\", "\\\\").replace("'", "\\'"))


def _parses(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True
