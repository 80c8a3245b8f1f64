"""A file's text, decompressed and decoded, and what its rows are before anyone knows their format."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.errors import ConfigError, need

log = logging.getLogger(__name__)

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")

Row = dict[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """A row no reader could make sense of, and why."""

    reason: str


def read_text(path: Path, *, legacy: bool = False) -> str:
    """The text of a file: UTF-8, or UTF-16 or -32, which begin in their own way.

    Bytes that are not UTF-8 survive as lone surrogates, which `dsel.data.formats` finds in the rows that have them.
    legacy: where all that is not ASCII is no UTF-8 the file is taken for Windows' cp1252, as Excel writes it, unless
        its bytes are none that such a text would have (`ConfigError`).
    """
    data = _decompressed(path)
    encoding = json.detect_encoding(data)  # by a byte order mark, or by where the zeros of ASCII signs are
    if encoding.startswith(("utf-16", "utf-32")):
        try:
            return data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: begins as {encoding} text, but is not ({error.reason})") from error
    text = data.decode("utf-8-sig", errors="surrogateescape")
    broken = sum("\udc80" <= sign <= "\udcff" for sign in text) if legacy and not text.isascii() else 0
    if broken and 2 * broken > sum(sign > "\x7f" for sign in text):
        runs = re.findall(rb"[\x80-\xff]+", data)
        long = sum(len(run) for run in runs if len(run) > 3)
        need(
            2 * long < sum(map(len, runs)),  # Western letters with accents seldom stand side by side
            f"{path}: neither UTF-8 nor Western text (perhaps GBK, Shift-JIS or Cyrillic); write it as UTF-8, "
            "e.g. with iconv -f gb18030 -t utf-8",
        )
        log.warning("%s: read as cp1252, as it is not UTF-8", path)
        return data.decode("cp1252", errors="surrogateescape")
    return text


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED:
        return data
    try:
        return {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": _unzstd}[suffix](data)
    except Exception as error:  # each library raises its own kinds: what matters is that the file is damaged
        raise ConfigError(f"{path}: cannot be decompressed ({error})") from error


def _unzstd(data: bytes) -> bytes:
    import zstandard

    parts = []
    while data:  # a file may hold several frames
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("the file ends in the middle")
        data = frame.unused_data
    return b"".join(parts)
