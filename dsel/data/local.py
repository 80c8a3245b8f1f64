"""A pool from files on disk: one or several, each with its source label."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dsel.cache import Cache
from dsel.component import content_of, identity
from dsel.constraints import Above, Count, File, Seed, ShareOrCount, Text
from dsel.data.base import Decontaminated
from dsel.data.formats import check_columns, format_named
from dsel.data.gather import Gathering
from dsel.data.layout import Found, find, sources
from dsel.data.parts import Part, Sample
from dsel.data.roles import check_roles
from dsel.errors import ConfigError, need, need_path
from dsel.pool import Pool
from dsel.stored import Writer, stored

log = logging.getLogger(__name__)

VERSION = 1  # of what rows become

Paths = File | Sequence[File]


@contextmanager
def reworded(say: Callable[[str], str]) -> Iterator[None]:
    """Inside, errors and what the log says of files are put by `say`: for files that are not those of `data`."""

    def put(record: logging.LogRecord) -> bool:
        record.msg, record.args = say(record.getMessage()), ()
        return True

    loggers = [log, *(logging.getLogger(maker.__module__) for maker in (Gathering, stored))]
    for logger in loggers:
        logger.addFilter(put)
    try:
        yield
    except ConfigError as error:
        raise ConfigError(say(str(error))) from error
    finally:
        for logger in loggers:
            logger.removeFilter(put)


@dataclass
class Local(Decontaminated):
    """Instruction data in files or folders.

    path: a file, a folder, a list of them, or a mapping {source label: file, folder or list}. Without labels a file's
        `source` (or `dataset`) column is its label, else the file's name, or where several have the same the folder's;
        shards of one data set are one source.
    split: of a folder (or a saved data set) that has splits as the hub knows them, in its files' names or its README,
        only this one is read; null: all files.
    subsets: of a folder whose README has several configurations, or that has a folder for each, those to mix, each with
        its name as source label.
    columns: our column name → the file's, where a file's columns are not recognised as they are.
    format: the columns of the format to read (`messages`, `question/answer`, …), where a row fits several.
    roles: name of a role in the files → system, user, assistant or tool, beyond the names that are known.
    limit: keep only the first so many usable rows: no more is read than that takes.
    sample: read only a fraction of the rows, or so many, drawn from all of them with `sample_seed`; those of them that
        cannot be used are reported like any other. Of a Parquet file only the row groups that they are in are read;
        other files are read twice, the first time to count their rows.
    on_bad_row: `skip` (counted by reason, named in the log) or `error`.
    holdout: a fraction or count kept out of the pool for `evaluator=heldout_loss`.
    """

    path: Paths | Mapping[Text, Paths] | None = None
    split: Text | None = "train"
    subsets: Sequence[Text] = ()
    columns: Mapping[str, Text] | None = None
    format: Text | None = None
    roles: Mapping[Text, str] | None = None
    limit: Count | None = None
    sample: Annotated[float, Above(0), ShareOrCount()] | None = None
    sample_seed: Seed = 0
    on_bad_row: Literal["skip", "error"] = "skip"
    holdout: Annotated[float, ShareOrCount()] = 0
    name: Text = "local"

    def check(self) -> None:
        self.check_options()
        need(self.path is not None, "data.path is not set: name a file, a folder, a list, or {label: file}")
        self._files()

    def check_options(self) -> None:
        self.check_decontamination()
        check_columns(self.columns)
        check_roles(self.roles)
        if self.format is not None:
            format_named(str(self.format))

    def extra_identity(self) -> dict[str, Any]:
        """What is read and the sources it makes up, wherever it is and whenever it was written."""
        if self.path is None:
            return {}
        files = [[label, name, _content(file)] for label, name, file in self._files()]
        return {"path": None, "files": files}

    def load(self, cache: Cache | None = None) -> Pool:
        """Read, convert and check every row. Raises `ConfigError` when no row is usable."""
        known = {name: value for name, value in identity(self).items() if name != "holdout"}
        return stored(cache, {"data": known, "reader": VERSION}, self._fill)

    def _fill(self, writer: Writer, truth: str | None = None) -> Pool:
        """Write all usable rows."""
        gathering = Gathering(
            columns=dict(self.columns or {}),
            roles=dict(self.roles or {}),
            format=self.format,
            limit=self.limit,
            sample=None if self.sample is None else Sample(self.sample, self.sample_seed),
            strict=self.on_bad_row == "error",
        )
        return gathering.read(self._sources(), writer, self.name, self._where(), truth)

    def _sources(self) -> Iterator[Part]:
        """The files to read, each with its source; says what is left out."""
        for label, name, file in self._files(say=True):
            yield Part(label, name, str(file), file, split=self.split)

    def _files(self, *, say: bool = False) -> list[tuple[str | None, str, Path]]:
        """(label or None, name of the source, file) of all that is read; `say` logs what is left out."""
        labelled: dict[str | None, list[Path]] = {}
        for own, path in self._paths():
            for subset in (self.subsets if path.is_dir() else ()) or (None,):
                found = self._find(path, subset)
                labelled.setdefault(own or subset, []).extend(found.files)
                if say and found.left_out:
                    read = "all" if self.split is None else f"split {self.split}"
                    log.info("%s: read is %s; left out: %s", path, read, found)
        out = []
        for label, files in labelled.items():
            once, twice = _once(files)
            if say and twice:
                log.warning("data.path: named more than once, and read once: %s", ", ".join(map(str, twice)))
            for source in sources(once):
                if say and source.missing:
                    log.warning("%s: shards %s are not there", source.name, ", ".join(map(str, source.missing)))
                out += [(label, label or source.name, file) for file in source.files]
        return out

    def _find(self, path: Path, subset: str | None) -> Found:
        return find(path, self.split, subset=subset)

    def _paths(self) -> list[tuple[str | None, Path]]:
        """(label or None, path) of each path that is named."""
        labelled = self.path.items() if isinstance(self.path, Mapping) else [(None, self.path)]
        out: list[tuple[str | None, Path]] = []
        for label, named in labelled:
            option = "data.path" if label is None else f"data.path.{label}"
            paths = [named] if isinstance(named, (str, Path)) else list(named or ())
            need(bool(paths), f"{option} is empty: name a file or a folder")
            out += [(label, need_path(path, option=option)) for path in paths]
        need(bool(out), "data.path is empty: name a file or a folder")
        return out

    def _where(self) -> str:
        return ", ".join(str(path) for _, path in self._paths())


def _once(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files without those that are others of them again, by name or by a link; and these.

    Two links to one file elsewhere are two files: so the hub's cache keeps those of equal content.
    """
    places = [file.parent.resolve() / file.name for file in files]
    known, once = set(places), dict[Path, Path]()
    twice: dict[Path, None] = {}
    for file, place in zip(files, places, strict=True):
        if place in once or (file.resolve() != place and file.resolve() in known):
            twice[file] = None
        else:
            once[place] = file
    return list(once.values()), list(twice)


def _content(file: Path) -> Any:
    try:
        return content_of(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror or error})") from error
