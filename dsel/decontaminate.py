"""What of the pool, and of what is chosen of it, has what is evaluated on: looked for, counted, taken out."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.cache import Cache
from dsel.component import digest
from dsel.contamination import KINDS, Evaluated, Found, shared
from dsel.data.base import Data, Decontaminated
from dsel.data.local import Local, reworded
from dsel.data.raw import opened, whole
from dsel.errors import need
from dsel.evaluator.base import Evaluator
from dsel.messages import turns_of
from dsel.pool import Pool, asked
from dsel.progress import tracked
from dsel.stage import Stage
from dsel.targets.base import Target

log = logging.getLogger(__name__)

VERSION = 1  # of what is found
LARGE = 20_000  # examples, from which on what is found is kept: looking takes over a second
OPTION = "data.decontaminate_with"
Stages = Callable[[str], AbstractContextManager[Stage]]


@dataclass(frozen=True)
class Texts:
    """What is evaluated on: a name, a text and the origin (`evaluator`, `file` or `targets`) of each.

    missing: tasks whose texts are not at hand.
    """

    names: Sequence[str]
    texts: Sequence[str]
    origins: Sequence[str]
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Contamination:
    """What was found in a pool, by runs of so many words. removed: whether such examples were taken out of it."""

    of: Texts
    words: int
    pool: Pool
    found: Found
    removed: bool

    @property
    def left(self) -> npt.NDArray[np.int64]:
        """The examples that there are to choose from."""
        return np.flatnonzero(~self.found.hit) if self.removed else np.arange(len(self.pool))

    def facts(self, chosen: npt.NDArray[np.int64]) -> dict[str, Any]:
        """What a record says of it. chosen: int64, of the pool that was chosen from."""
        every = self._of(np.arange(len(self.pool)))
        return {
            "words": self.words,
            "against": dict(Counter(self.of.origins)),
            "not_at_hand": list(self.of.missing),
            **self._of(self.left[chosen]),
            "pool": {**every, "removed": len(self.pool) - len(self.left)},
        }

    def _of(self, indices: npt.NDArray[np.int64]) -> dict[str, Any]:
        """What some of the pool's examples have."""
        found = self.found.take(indices)
        hits = np.flatnonzero(found.hit)
        return {
            "of": len(indices),
            "examples": len(hits),
            "share": len(hits) / max(len(indices), 1),
            "origins": dict(Counter(self.of.origins[i] for i in found.items[hits].tolist())),
            "kinds": dict(Counter(KINDS[kind] for kind in found.kinds[hits].tolist())),
            "worst": [
                {
                    "id": self.pool.ids[int(indices[i])],
                    "text": self.of.names[int(found.items[i])],
                    "origin": self.of.origins[int(found.items[i])],
                    "kind": KINDS[found.kinds[i]],
                    "share": float(found.shares[i]),
                }
                for i in found.worst()
            ],
        }


def looked(
    data: Data,
    target: Target | None,
    evaluator: Evaluator,
    pool: Pool,
    heldout: Pool,
    cache: Cache,
    stage: Stages,
) -> Contamination | None:
    """What `pool` has of all that is at hand of what is evaluated on; None where that is nothing, or is not wanted.

    Raises:
        ConfigError: where examples are to be removed, and there is nothing to look for.
    """
    how = data if isinstance(data, Decontaminated) else Decontaminated()
    has_any = target is not None or how.decontaminate_with is not None or hasattr(evaluator, "texts")
    if how.decontaminate == "off" or (how.decontaminate == "report" and not has_any):
        return None
    with stage("decontaminate") as looking:
        of = _gathered(how, target, evaluator, heldout, cache)
        need(
            bool(of.texts) or how.decontaminate != "remove",
            "data.decontaminate=remove: there is nothing to look for, as there are no targets and no text of the "
            "evaluator is at hand: name a file in data.decontaminate_with",
        )
        if of.missing:
            say = log.warning if how.decontaminate == "remove" else log.info
            say("not looked for in the pool, as they are not at hand: the texts of %s", ", ".join(of.missing))
        if not of.texts:
            return None
        found, looking.cached = _found(of, how.decontaminate_words, pool, cache)
        looking.items = len(pool)
    removed, count = how.decontaminate == "remove", int(np.count_nonzero(found.hit))
    if count:
        had = shared({of.origins[i] for i in np.unique(found.items[found.hit]).tolist()})
        said = (
            "taken out of the pool: %d of %d examples, which have %s"
            if removed
            else "%d of the pool's %d examples have %s"
        )
        log.info(said, count, len(pool), had)
    return Contamination(of, how.decontaminate_words, pool, found, removed)


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """The same facts, said in the log where anything was found among the chosen."""
    if facts["examples"]:
        first = facts["worst"][0]
        log.warning(
            "%d of %d chosen examples have %s, most of all %s that of %s (%s); "
            "data.decontaminate=remove takes such examples out of the pool",
            *(facts["examples"], facts["of"], shared(facts["origins"])),
            *(first["id"], first["text"], first["kind"]),
        )
    return facts


def _gathered(how: Decontaminated, target: Target | None, evaluator: Evaluator, heldout: Pool, cache: Cache) -> Texts:
    """All that is at hand of what is evaluated on; of an example with two of the same, the first counts."""
    parts: list[tuple[str, Sequence[str], Sequence[str]]] = []
    missing: Sequence[str] = ()
    if hasattr(evaluator, "texts"):
        found = evaluator.texts(heldout, cache)
        missing = found.missing
        parts.append(("evaluator", list(found.texts), list(found.texts.values())))
    if how.decontaminate_with is not None:
        parts.append(("file", *_of_file(Path(how.decontaminate_with).expanduser(), cache)))
    if target is not None:
        parts.append(("targets", list(target.pool.ids), asked(target.pool)))
    return Texts(
        list(chain.from_iterable(names for _, names, _ in parts)),
        list(chain.from_iterable(texts for _, _, texts in parts)),
        [origin for origin, names, _ in parts for _ in names],
        missing,
    )


def _of_file(path: Path, cache: Cache) -> tuple[Sequence[str], Sequence[str]]:
    """Names and texts of `data.decontaminate_with`."""
    if path.suffix == ".txt":
        with opened(path, legacy=True) as file:
            lines = whole(file).encode(errors="replace").decode().splitlines()
        said = [i for i, line in enumerate(lines) if line.strip()]
        need(bool(said), f"{OPTION}={path}: there is no text in it")
        return [f"{path.name}/{i + 1}" for i in said], [lines[i] for i in said]
    with reworded(_of_texts):
        pool = Local(path=path, split=None, name="evaluated").load(cache)
    return list(pool.ids), asked(pool)


def _of_texts(text: str) -> str:
    """What is said of files of `data`, without the advice to set options that this one has not."""
    return re.sub(r"^data(?=: )", OPTION, re.sub(r"; [^;]*\bdata\.[a-z][^;]*", "", text))


def _found(of: Texts, words: int, pool: Pool, cache: Cache) -> tuple[Found, bool]:
    """What the pool has of the texts, and whether that was known."""
    if len(pool) < LARGE:
        return _look(of, words, pool), False
    key = {"pool": pool.fingerprint, "texts": digest(list(of.texts)), "words": words, "version": VERSION}

    def build(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = _look(of, words, pool)
        hits = np.flatnonzero(found.hit)
        columns = {"index": hits, **{name: getattr(found.take(hits), name) for name in ("kinds", "items", "shares")}}
        pq.write_table(pa.table(columns), folder / "found.parquet")

    folder, cached = cache.artifact("contamination", key, build, lease=True)
    return _read(folder, len(pool)), cached


def _look(of: Texts, words: int, pool: Pool) -> Found:
    turns = (each for batch in pool.batches(["messages"]) for each in turns_of(batch.column(0)))
    return Evaluated(of.texts, words).look(
        tracked(turns, "looking for what is evaluated on", total=len(pool), unit="examples")
    )


def _read(folder: Path, n: int) -> Found:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "found.parquet")
    found = Found(np.zeros(n, np.int8), np.full(n, -1, np.int64), np.zeros(n, np.float32))
    index = table["index"].to_numpy()
    for name in ("kinds", "items", "shares"):
        getattr(found, name)[index] = table[name].to_numpy()
    return found
