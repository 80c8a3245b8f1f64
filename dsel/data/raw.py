"""A file's text, decompressed and decoded piece by piece, and what its rows are before anyone knows their format."""

from __future__ import annotations

import bz2
import io
import json
import logging
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from dsel.errors import ConfigError, need

log = logging.getLogger(__name__)

PIECE = 2**20  # bytes or characters that are read at once
GIVEN = 2**12  # bytes given to a decompressor at once: the least of them stand for 100 MB
LONGEST = 2**28  # characters of a line that is read
LARGE, DENSE = 2**28, 200  # bytes of a text from which on it is no more than so many times its compressed size

ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8

Row = dict[str, Any]


BEYOND = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True)
class Unreadable:
    """A row no reader could make sense of, and why."""

    reason: str


@contextmanager
def opened(path: Path, *, newline: str = "\n", legacy: bool = False) -> Iterator[TextIO]:
    """The text of a file: UTF-8, or UTF-16 or -32, which begin in their own way.

    Bytes that are not UTF-8 survive as lone surrogates, which `dsel.data.formats` finds in the rows that have them.
    newline: as `open()` takes it. legacy: where all that is not ASCII is no UTF-8 the file is taken for Windows'
    cp1252, as Excel writes it, unless its bytes are none that such a text would have. Raises `ConfigError`, also while
    the text is read, for what cannot be decompressed or decoded.
    """
    with _bytes(path) as file:
        encoding = json.detect_encoding(file.read(4))  # by a byte order mark, or by where the zeros of ASCII signs are
    wide = encoding.startswith(("utf-16", "utf-32"))
    narrow = "cp1252" if legacy and not wide and _is_cp1252(path) else "utf-8-sig"
    errors = "strict" if wide else "surrogateescape"
    with _bytes(path) as file:
        try:
            yield io.TextIOWrapper(file, encoding if wide else narrow, errors, newline)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: begins as {encoding} text, but is not ({error.reason})") from error


def lines_of(text: TextIO) -> Iterator[str | Unreadable]:
    """The lines of a text with their ends; one that is too long to be read is named instead."""
    while line := text.readline(LONGEST):
        if len(line) < LONGEST or line.endswith("\n"):
            yield line
            continue
        while (rest := text.readline(PIECE)) and not rest.endswith("\n"):
            pass
        yield Unreadable(f"a line of more than {LONGEST:,} characters")


def whole(text: TextIO) -> str:
    """All of a text, the byte order mark that UTF-16 may have left at its beginning taken away."""
    return "".join(iter(lambda: text.read(PIECE), "")).removeprefix("\ufeff")


def _is_cp1252(path: Path) -> bool:
    broken = beyond = side_by_side = 0
    with _bytes(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        for piece in iter(lambda: text.read(PIECE), ""):
            if not piece.isascii():
                broken += len(ESCAPED.findall(piece))
                runs = [len(run) for run in BEYOND.findall(piece)]
                beyond += sum(runs)
                side_by_side += sum(run for run in runs if run > 3)
    if broken and 2 * broken > beyond:
        need(
            2 * side_by_side < beyond,  # Western letters with accents seldom stand so
            f"{path}: neither UTF-8 nor Western text (perhaps GBK, Shift-JIS or Cyrillic); write it as UTF-8, "
            "e.g. with iconv -f gb18030 -t utf-8",
        )
        log.warning("%s: read as cp1252, as it is not UTF-8", path)
        return True
    return False


@contextmanager
def _bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed. Raises `ConfigError` for a pipe, which would have us wait for ever."""
    need(stat.S_ISREG(path.stat().st_mode), f"{path}: not a file")
    with path.open("rb", buffering=PIECE) as file:
        new = DECOMPRESSORS.get(path.suffix.lower())
        yield file if new is None else io.BufferedReader(_Pieces(_decompressed(file, new, path)), PIECE)


class _Pieces(io.RawIOBase):
    """A file out of pieces."""

    def __init__(self, pieces: Iterator[bytes]):
        self.pieces, self.rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self.rest:
            self.rest = memoryview(next((piece for piece in self.pieces if piece), b""))
        count = min(len(target), len(self.rest))
        target[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def _decompressed(file: BinaryIO, new: Callable[[], Any], path: Path) -> Iterator[bytes]:
    """The content of a compressed file in pieces. Raises `ConfigError` where it is damaged or a bomb."""
    size, total = path.stat().st_size, 0
    try:
        for piece in _members(file, new):
            total += len(piece)
            need(
                total <= max(LARGE, DENSE * size),
                f"{path}: decompressed it is more than {DENSE} times as large, more than {total / 2**20:,.0f} MB; "
                "where that is right, decompress it first",
            )
            yield piece
    except ConfigError:
        raise
    except Exception as error:  # each library raises its own kinds: what matters is that the file is damaged
        raise ConfigError(f"{path}: cannot be decompressed ({error})") from error


def _members(file: BinaryIO, new: Callable[[], Any]) -> Iterator[bytes]:
    """A file may be several compressed ones in a row, with zeros after each."""
    given = file.read(GIVEN)
    need(bool(given), f"{file.name}: an empty file, which is not a compressed one")
    while given:
        member = new()
        while not member.eof:
            yield member.decompress(given, PIECE) if hasattr(member, "needs_input") else member.decompress(given)
            given = file.read(GIVEN) if getattr(member, "needs_input", True) and not member.eof else b""
            if not given and getattr(member, "needs_input", True) and not member.eof:
                raise EOFError("it ends in the middle")
        given = member.unused_data.lstrip(b"\0")
        while not given and (more := file.read(GIVEN)):
            given = more.lstrip(b"\0")


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".zst": _zstd,
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}
COMPRESSED = tuple(DECOMPRESSORS)
