"""Keys come from the environment and go nowhere else: what is written down passes through `redact`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS")
HIDDEN = "<hidden>"


def redact(value: Any) -> Any:
    """`value` (text, or containers of it) with the content of every secret environment variable replaced.

    Secret is a variable whose name ends in KEY, TOKEN, SECRET, PASSWORD or CREDENTIALS.
    """
    if isinstance(value, Mapping):
        return {k: redact(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(v) for v in value]
    if isinstance(value, str):
        for secret in _secrets():
            value = value.replace(secret, HIDDEN)
    return value


class RedactingFormatter(logging.Formatter):
    """A log formatter that hides secrets wherever they come from: our lines, a library's, or a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _secrets() -> list[str]:
    found = {v.strip() for k, v in os.environ.items() if k.upper().endswith(ENDINGS) and len(v.strip()) >= 8}
    return sorted(found, key=len, reverse=True)  # the longest first: one may contain another
