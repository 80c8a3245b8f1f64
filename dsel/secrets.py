"""Keys come from the environment and go nowhere else: what is written (files, logs, streams) passes through `redact`.

A configuration holds no key but the name of its variable (dsel.references), which is resolved in memory.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import quote

ENDINGS = ("KEY", "KEY_ID", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS")
HIDDEN = "<hidden>"

LAST_WORDS = frozenset(
    "key apikey token secret password passwd passphrase pwd credential credentials authorization cookie".split()
)
"""What the name of an option or header that holds a secret ends with."""
OF_TEXTS = frozenset("pad eos bos unk mask sep cls stop start end image special primary sort group".split())
"""What comes before `token` or `key` in the name of one that is none."""
PLAIN_HEADERS = frozenset("accept accept-language content-type user-agent referer http-referer origin x-title".split())

USER = re.compile(r"(?<=://)(?P<user>[^\s/@:]*)(?P<password>:[^\s/@]*)?@")  # of a URL
QUERY = re.compile(
    r"(?P<name>[?&][\w.-]*(?:key|token|secret|signature|password)=)(?P<value>[^\s&#\"']+)", re.IGNORECASE
)
SCHEME = re.compile(
    r"\b(?P<scheme>Bearer|Basic) +(?=[\w.~+/-]*[\d=])(?P<value>[\w.~+/=-]{8,})"
)  # "Basic English" is none

variables: set[str] = set()
"""Those that the configuration refers to where a secret belongs, whatever their names."""


def redact(value: Any) -> Any:
    """`value` (text, or containers of it) without secrets.

    Hidden is the content of every environment variable whose name ends in KEY, TOKEN, SECRET, PASSWORD or CREDENTIALS
    or that a secret option refers to, and what `anonymous` hides.
    """
    return _replaced(anonymous(value), _secrets())


def anonymous(value: Any) -> Any:
    """`value` without what is secret by its place, whoever looks: secret options and headers, and parts of URLs."""
    if isinstance(value, Mapping):
        return {_in_text(k): _of_option(str(k), v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [anonymous(v) for v in value]
    return _in_text(value)


class RedactingFormatter(logging.Formatter):
    """A log formatter that hides secrets wherever they come from: our lines, a library's, or a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Covered:
    """A stream that hides secrets in what is written to it."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def cover() -> None:
    """Hide secrets in all that this process writes to its standard streams from now on, tracebacks included."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), _Covered):
            setattr(sys, name, _Covered(getattr(sys, name)))


def is_secret(name: str) -> bool:
    """Whether an option or header of this name holds a secret: `api_key`, `X-Api-Key`, `hf_token`; not `pad_token`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_").split("_")
    return words[-1] in LAST_WORDS and not (len(words) > 1 and words[-2] in OF_TEXTS)


def _of_option(name: str, value: Any) -> Any:
    if name.lower().endswith("headers") and isinstance(value, Mapping):
        return {k: _in_text(v) if str(k).lower() in PLAIN_HEADERS else HIDDEN for k, v in value.items()}
    if is_secret(name) and name.lower() not in ("key", "token") and isinstance(value, str) and value:
        return HIDDEN
    return anonymous(value)


def _in_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if "://" in value:
        value = QUERY.sub(rf"\g<name>{HIDDEN}", USER.sub(f"{HIDDEN}@", value))
    return SCHEME.sub(rf"\g<scheme> {HIDDEN}", value)


def _replaced(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {_replaced(k, secrets): _replaced(v, secrets) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(v, secrets) for v in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
    return value


def _secrets() -> list[str]:
    found = {
        v.strip()
        for k, v in os.environ.items()
        if (k.upper().endswith(ENDINGS) or k in variables) and len(v.strip()) >= 8
    }
    found |= {quote(v, safe="") for v in found} | {repr(v)[1:-1] for v in found}  # in a URL, in a traceback
    return sorted(found, key=len, reverse=True)  # the longest first: one may contain another
