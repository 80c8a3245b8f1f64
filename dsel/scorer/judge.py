"""A language model behind an API as judge of the examples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np

from dsel.component import knob
from dsel.constraints import Address, AtLeast, Count, Positive, Text
from dsel.errors import ConfigError
from dsel.files import replacing
from dsel.lazy import blocks, fetched, mapped
from dsel.pool import Pool
from dsel.progress import progress
from dsel.reading import note_cut
from dsel.scorer.base import Scorer, Scores
from dsel.scorer.endpoint import Endpoint, EndpointError
from dsel.scorer.rating import parse_rating, prompt_text, question, sides
from dsel.shards import HERE, Map

AT_ONCE = 20_000  # questions that are made before the answers to them are waited for

log = logging.getLogger(__name__)


@dataclass
class Judge(Scorer):
    """Ratings from 1 to 10 of each example's last response by a chat model (Yu et al. 2024 ask GPT-4).

    prompt: `paper` (Figure 6 of Yu et al.), `own`, or a file that says ${instruction} and ${response} where those of an
    example shall stand. scale: the highest grade, 10 as in that figure or 5 as in the paper's text.
    model, base_url, options, needs_key, concurrency, requests_per_minute, timeout, max_retries: see
    `dsel.scorer.endpoint.Endpoint`. max_characters: of a conversation that are shown; the middle of a longer one is
    left out. attempts: how often an example is asked about until the answer holds a rating. on_failure: `error`, or
    `mean` for the mean of the other ratings. These two stay out of the identity, so that a scoring that failed can be
    told to go on from the answers it has paid for.

    Every answer is appended to `answers.jsonl` as it arrives, and stays there beside the scores.
    """

    model: Text = "gpt-4o-mini"
    base_url: Address | None = None
    options: Mapping[Text, Any] = field(default_factory=dict)
    prompt: Text = "paper"
    scale: Literal[5, 10] = 10
    max_characters: Annotated[int, AtLeast(100)] = 24_000
    attempts: Count = knob(3)
    on_failure: Literal["error", "mean"] = knob("error")
    needs_key: bool = knob(True)
    concurrency: Count = knob(8)
    requests_per_minute: Positive | None = knob(None)
    timeout: Positive = knob(120.0)
    max_retries: int = knob(8)

    def check(self) -> None:
        prompt_text(self.prompt, self.scale)
        self.endpoint.check(why="scorer=judge")

    def extra_identity(self) -> dict[str, Any]:
        return {"prompt": prompt_text(self.prompt, self.scale)}

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that these options describe."""
        return Endpoint(
            model=self.model,
            base_url=self.base_url,
            options=self.options,
            needs_key=self.needs_key,
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n] within 1 and `scale`.

        Raises:
            EndpointError: it keeps failing, or refuses the first request; its answers are kept for the next run.
            ConfigError: it refuses the key or the model; or examples have no rating after all attempts and `on_failure`
                is `error`, or no example has one.
        """
        endpoint, prompt = self.endpoint, prompt_text(self.prompt, self.scale)
        most = self.max_characters
        questions = mapped(lambda messages: question(prompt, messages, most), pool.messages)
        sizes = np.fromiter((sum(map(len, sides(messages))) for messages in pool.messages), np.int64, len(pool))
        counts = np.stack([sizes, np.minimum(sizes, most), np.full(len(pool), most)], axis=1)
        note_cut(scratch, "judge", counts, "a larger scorer.max_characters shows it more", unit="characters")
        with Answers.open(scratch / "answers.jsonl", self.scale) as answers:
            rated = (answers.rating(name) is not None for name in pool.ids)
            todo = np.flatnonzero(~np.fromiter(rated, np.bool_, len(pool)))
            with progress("judge", total=len(pool), unit="examples") as advance:
                advance(len(pool) - len(todo))
                workers = ThreadPoolExecutor(self.concurrency)
                try:
                    for part in blocks(len(todo), AT_ONCE):
                        rows = todo[part.start : part.stop]
                        asked = zip(fetched(pool.ids, rows), fetched(questions, rows), strict=True)
                        futures = [workers.submit(self._rate, endpoint, name, text, answers) for name, text in asked]
                        for future in as_completed(futures):
                            future.result()
                            advance(1)
                finally:
                    endpoint.stop()
                    workers.shutdown(wait=True, cancel_futures=True)
        return self._scores(pool, answers)

    def _rate(self, endpoint: Endpoint, name: str, text: str, answers: Answers) -> None:
        """Ask until there is a rating, or no attempt left; answers that an earlier run got count."""
        for _ in range(answers.count(name), self.attempts):
            try:
                answer = endpoint.ask([{"role": "user", "content": text}])
            except EndpointError as error:
                if error.status is None or not len(answers):  # down, or nothing works: perhaps an option is wrong
                    raise
                log.warning("example %s: %s", name, error)
                return
            if answers.add(name, answer) is not None:
                return

    def _scores(self, pool: Pool, answers: Answers) -> Scores:
        found = (answers.rating(name) for name in pool.ids)
        scores = np.fromiter((np.nan if rating is None else rating for rating in found), np.float64, len(pool))
        missing = np.flatnonzero(np.isnan(scores))
        if not len(missing):
            return scores.astype(np.float32)
        names = ", ".join(pool.ids[i] for i in missing[:5])
        failure = f"the judge gave no rating for {len(missing)} of {len(pool)} examples (ids {names})"
        if self.on_failure == "error" or len(missing) == len(pool):
            advice = "raise scorer.attempts, or set scorer.on_failure=mean: the answers so far are kept"
            raise ConfigError(f"{failure}: {advice}")
        log.warning("%s: they get the mean of the others", failure)
        return np.where(np.isnan(scores), np.nanmean(scores), scores).astype(np.float32)


class Answers:
    """The answers so far, in memory and in a file of JSON lines that any kill leaves readable."""

    def __init__(self, file: Any, earlier: Iterable[Mapping[str, Any]], scale: int):
        self._file = file
        self._scale = scale
        self._lock = Lock()
        self._ratings: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        for row in earlier:
            self._note(row["id"], row["answer"])

    @classmethod
    @contextmanager
    def open(cls, path: Path, scale: int) -> Iterator[Answers]:
        """Those in `path`, to which `add` appends; a line that a kill tore, or that is damaged, is asked for again."""
        damaged = 0
        if path.exists():
            with path.open("rb") as lines:
                damaged = sum(not _whole(line) for line in lines)
        if damaged:
            log.warning("%s: %d damaged lines are left out", path, damaged)
            with path.open("rb") as lines, replacing(path) as temporary, temporary.open("wb") as file:
                file.writelines(line for line in lines if _whole(line))
        with path.open("a+b") as file:
            file.seek(0)
            yield cls(file, map(json.loads, file), scale)

    def add(self, name: str, answer: str) -> float | None:
        """Keep an answer about example `name`, on disk before this returns. Its rating, if it holds one."""
        with self._lock:
            self._file.write(json.dumps({"id": name, "answer": answer, "check": _check(name, answer)}).encode() + b"\n")
            self._file.flush()
            return self._note(name, answer)

    def __len__(self) -> int:
        """How many examples there are answers about."""
        return len(self._counts)

    def rating(self, name: str) -> float | None:
        return self._ratings.get(name)

    def count(self, name: str) -> int:
        """How many answers there are about example `name`."""
        return self._counts[name]

    def _note(self, name: str, answer: str) -> float | None:
        self._counts[name] += 1
        rating = parse_rating(answer, self._scale)
        if rating is not None:
            self._ratings[name] = rating
        return rating


def _check(name: str, answer: str) -> str:
    """What tells a line that was damaged on its disk from one that was not."""
    import xxhash

    return xxhash.xxh3_64_hexdigest(json.dumps([name, answer]).encode())


def _whole(line: bytes) -> bool:
    try:
        row = json.loads(line)
        return line.endswith(b"\n") and row["check"] == _check(row["id"], row["answer"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
