"""A pool from the Hugging Face hub, or from a local copy of the same data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from dsel.constraints import Text
from dsel.data.layout import Found, find
from dsel.data.local import Local
from dsel.data.rows import Part
from dsel.errors import ConfigError, need


@dataclass
class Hub(Local):
    """A data set of the hub by its id; with `path`, the files there instead, read as the hub would read them.

    hub: repository id. revision: branch, tag or commit, for runs that can be repeated.
    subsets: configurations to mix, each with its name as source label (none: the default one).
    files: only these files of the repository, where it has no usable configuration or only a script that the library no
        longer runs. They are fetched and read like a local copy.
    """

    repo_type: ClassVar[str] = "dataset"

    hub: str = ""
    revision: Text | None = None
    files: Text | Sequence[Text] | None = None
    needs_subsets: bool = False

    def check(self) -> None:
        if self.path is not None:
            super().check()
            return
        self.check_options()
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
            yield Part(subset, subset or Path(self.hub).name, where, self._load(subset))

    def _find(self, path: Path, subset: str | None) -> Found:
        return find(path, self.split, subset=subset, only=self._named())

    def _named(self) -> Sequence[str]:
        return (self.files,) if isinstance(self.files, str) else self.files or ()

    def _files(self, *, say: bool = False) -> list[tuple[str | None, str, Path]]:
        """Those of a local copy; where they are one source, it has the name that it has on the hub."""
        found = super()._files(say=say)
        one = len({(label, name) for label, name, _ in found}) == 1
        return [(label, label or Path(self.hub).name, file) for label, _, file in found] if one else found

    def _load(self, subset: str | None) -> Iterable[dict[str, Any]]:
        from datasets import load_dataset

        with self._from_hub():
            return load_dataset(self.hub, subset, split=self.split or "all", revision=self.revision)

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
