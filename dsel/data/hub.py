"""A pool from the Hugging Face hub, or from a local copy of the same data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from dsel.constraints import Text
from dsel.data.layout import Found, find
from dsel.data.local import Local
from dsel.data.parts import Part
from dsel.data.units import ROWS, Batch
from dsel.errors import ConfigError, need


@dataclass
class Hub(Local):
    """A data set of the hub by its id; with `path`, the files there instead, read as the hub would read them.

    hub: repository id. revision: branch, tag or commit, for runs that can be repeated.
    subsets: configurations to mix, each with its name as source label (none: the default one).
    files: only these files of the repository, where it has no usable configuration or only a script that the library no
        longer runs. They are fetched and read like a local copy.
    streaming: read it as it comes over the network, and no more of it than `limit` asks for, instead of fetching all of
        its files first.
    """

    repo_type: ClassVar[str] = "dataset"

    hub: str = ""
    revision: Text | None = None
    files: Text | Sequence[Text] | None = None
    streaming: bool = False
    needs_subsets: bool = False

    def check(self) -> None:
        if self.path is not None:
            super().check()
            return
        self.check_options()
        need(
            not self.streaming or (self.split is not None and self.sample is None),
            "data.streaming=true reads from the beginning of one split: set data.split, and data.limit for data.sample",
        )
        need(bool(self.hub.strip()), f"data.hub='{self.hub}': name a data set of the hub, or a copy in data.path")
        need(
            bool(self.subsets) or not self.needs_subsets,
            f"data={self.name}: {self.hub} has hundreds of subsets; name some with data.subsets=[…], or point "
            "data.path at a local copy",
        )

    def _sources(self) -> Iterator[Part]:
        if self.path is not None:
            yield from super()._sources()
            return
        if self.files is not None:
            yield from replace(self, path=str(self._fetched()))._sources()
            return
        for subset in self.subsets or (None,):
            where = f"{self.hub}{'/' + subset if subset else ''}"
            some = self.limit is not None or self.streaming  # then no more is fetched than it takes
            found = None if some else self._load(subset)
            files = () if found is None else _files(found)
            yield Part(subset, subset or Path(self.hub).name, where, batches=self._batches(subset, found), files=files)

    def _find(self, path: Path, subset: str | None) -> Found:
        return find(path, self.split, subset=subset, only=self._named())

    def _named(self) -> Sequence[str]:
        return (self.files,) if isinstance(self.files, str) else self.files or ()

    def _files(self, *, say: bool = False) -> list[tuple[str | None, str, Path]]:
        """Those of a local copy; where they are one source, it has the name that it has on the hub."""
        found = super()._files(say=say)
        one = len({(label, name) for label, name, _ in found}) == 1
        return [(label, label or Path(self.hub).name, file) for label, _, file in found] if one else found

    def _load(self, subset: str | None) -> Any:
        from datasets import load_dataset

        with self._from_hub():
            return load_dataset(
                self.hub, subset, split=self.split or "all", revision=self.revision, streaming=self.streaming
            )

    def _batches(self, subset: str | None, found: Any) -> Iterator[Batch]:
        """The rows as the library has them, in Arrow. found: what was loaded already, or None."""
        found = self._load(subset) if found is None else found
        tables = iter(found.with_format("arrow").iter(ROWS))
        while True:
            with self._from_hub():
                table = next(tables, None)
            if table is None:
                return
            for batch in table.to_batches(ROWS):
                yield Batch(batch.replace_schema_metadata(None), batch.num_rows)

    def _fetched(self) -> Path:
        """The folder that `files` are in, fetched if need be."""
        from huggingface_hub import snapshot_download

        if Path(self.hub).is_dir():
            return Path(self.hub)
        with self._from_hub():
            patterns = list(self._named())
            found = snapshot_download(self.hub, repo_type="dataset", revision=self.revision, allow_patterns=patterns)
        return Path(found)

    @contextmanager
    def _from_hub(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # offline, gated, renamed: the libraries raise a dozen kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"data={self.name}: cannot load {self.hub} from the hub ({reason}); "
                "check the network and `hf auth login`, or point data.path at a local copy"
            ) from error

    def _where(self) -> str:
        return self.hub if self.path is None else super()._where()


def _files(found: Any) -> list[Path]:
    """The Arrow files that a data set of the library is made of, in order; none where it is not all of some."""
    import pyarrow as pa

    files = [Path(each["filename"]) for each in getattr(found, "cache_files", ())]
    plain = found.with_format("arrow")
    start = 0
    for file in files:
        with pa.memory_map(str(file)) as source:
            batches = [batch for batch in pa.ipc.open_stream(source) if batch.num_rows]
            rows = sum(batch.num_rows for batch in batches)
            if any(isinstance(field.type, pa.ExtensionType) for field in plain.data.schema):
                return []  # of the library's own, which other processes do not know
            first = pa.Table.from_batches(batches[:1]).slice(0, 1)
            if start + rows > len(found) or (rows and not plain[start : start + 1].equals(first)):
                return []
            start += rows
    return files if files and start == len(found) else []
