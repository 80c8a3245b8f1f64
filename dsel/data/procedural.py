"""The default pool: checkable text tasks drawn from a seed, with the faults of a scraped instruction pool.

Kinds of task differ in size by Zipf's law, prompts come in several wordings, some rows are near-copies of
others, and the wrong responses sit together: mostly in spoilt (kind, wording) cells and in families of
boilerplate, the rest sprinkled over everything. These are the properties that selection methods trade on
(noise in clusters: Diversify and Conquer, section 4); none was set with one method in mind.

All draws come from NumPy generators spawned from the seed: same arguments, same rows, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from dsel.cache import Cache
from dsel.constraints import AtLeast, Below, Count, NotNegative, Seed, Share, ShareOrCount, Text
from dsel.data import facts
from dsel.data.base import Decontaminated
from dsel.data.kinds import Fields, Kind, draw_item
from dsel.data.lookups import LOOKUPS
from dsel.data.operations import OPERATIONS
from dsel.errors import need
from dsel.pool import Example, Pool, is_answer

KINDS: tuple[Kind, ...] = LOOKUPS + OPERATIONS

# Of all noise: so much in spoilt cells, so much in boilerplate families, the rest anywhere.
_IN_CELLS, _IN_BOILERPLATE = 0.50, 0.35
_CELL_SPOILT = 0.9  # share of a spoilt cell's rows that is wrong
_WORDINGS_PER_CELL = 2
_FAULTS, _FAULT_ODDS = ("wrong", "truncated", "unrelated"), (0.5, 0.2, 0.3)

# The rater: mean 4.0 for right and 3.0 for wrong, a whim per kind, and noise. AUC about 0.75.
_RATING_RIGHT, _RATING_WRONG, _RATING_WHIM, _RATING_SPREAD = 4.0, 3.0, 0.3, 1.0

SITES = ("wordhub", "quizcorner", "classroom", "helpdesk", "forum")
BOILERPLATE = (  # what a scraper took of a page: debris around the question, and a word as long as answers are
    ("{} Sorry, this thread is closed.", "sorry"),
    ("Click here to read more. {}", "none"),
    ("{} Log in to see the whole page.", "error"),
    ("Skip to the main content. {}", "skip"),
    ("{} Share this page with a friend.", "spam"),
)
EDITS = (
    "Hello! {}",
    "{} Thank you.",
    "Please answer: {}",
    "{} Keep it short.",
    "Quick question. {}",
    "{} Only the answer, please.",
)


@dataclass(frozen=True)
class _Row:
    kind: int
    wording: int
    prompt: str
    answer: str
    response: str

    @property
    def is_noise(self) -> bool:
        return not is_answer(self.answer, self.response)


def generate(
    size: int, seed: int, *, noise: float = 0.3, near_duplicates: float = 0.15, zipf: float = 1.0
) -> list[dict[str, Any]]:
    """Draw a pool of `size` rows.

    Args:
        size: number of rows, returned exactly.
        seed: any non-negative integer.
        noise: share of rows whose response is not the answer, in [0, 1]; exact before near-copies are added.
        near_duplicates: share of rows that repeat another row with a trivially edited prompt, in [0, 1).
        zipf: exponent of the sizes of kinds; 0 makes them equal. The order of kinds depends on the seed.

    Returns:
        Shuffled rows with `messages` (user, assistant), `source` (a site; says nothing about noise), `kind`,
        `is_noise`, `answer` (the true one) and `rating`: an imperfect rater's mark between 1 and 6, which
        ranks a right response above a wrong one about three times in four. Items that `heldout` asks for
        never occur.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if size < 0 or not 0 <= noise <= 1 or not 0 <= near_duplicates < 1 or zipf < 0:
        raise ValueError(
            "generate needs size >= 0, noise in [0, 1], near_duplicates in [0, 1) and zipf >= 0, not "
            f"{size}, {noise}, {near_duplicates}, {zipf}"
        )
    draws, faults, copies, ratings, order = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(5))
    originals = size - round(size * near_duplicates)
    rows = _right_rows(originals, zipf, draws)
    rows = _spoil(rows, round(originals * noise), faults)
    rows += _near_copies(rows, size - originals, copies)
    marks = _rate(rows, ratings)
    sites = _sites(rows, ratings)
    return [_as_dict(rows[i], sites[i], marks[i]) for i in order.permutation(size)]


def need_kinds(names: Sequence[str], option: str) -> None:
    """Raise `ConfigError` where there is no kind of such a name."""
    known = [kind.name for kind in KINDS]
    for name in names:
        need(name in known, f"{option}: there is no kind {name}; there are {', '.join(known)}")


def heldout(per_kind: int, seed: int, kinds: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Draw `per_kind` distinct evaluation prompts of every kind, or of those named, as `prompt`, `answer`, `kind`.

    A kind's are the same whichever others are named. They ask for the quarter of all items that `generate` leaves out
    whatever its seed (`kinds.reserved`).

    Raises:
        ValueError: if a kind has fewer than `per_kind` distinct reserved prompts.
    """
    rows = []
    for kind, stream in zip(KINDS, np.random.SeedSequence(seed).spawn(len(KINDS)), strict=True):
        if kinds is not None and kind.name not in kinds:
            continue
        rng = np.random.default_rng(stream)
        answers: dict[str, str] = {}
        for attempt in range(100 * per_kind):
            if len(answers) == per_kind:
                break
            fields, answer = draw_item(kind, rng, evaluation=True)
            answers[kind.prompts[attempt % len(kind.prompts)].format(**fields)] = answer
        if len(answers) < per_kind:
            raise ValueError(f"kind {kind.name!r} has fewer than {per_kind} evaluation prompts")
        rows += [{"prompt": p, "answer": a, "kind": kind.name} for p, a in answers.items()]
    return rows


def raw_text(seed: int, documents: int) -> Iterator[str]:
    """Yield plain pretraining documents about the same facts and operations, evaluation items included.

    Prose statements, bulleted lists, notes and small talk; never the chat format. Some wordings of a kind
    are answered here, the others only asked (so that their words are known): what finetuning adds is the
    format, the habit of stopping, and what the other wordings mean; not the knowledge.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    for _ in range(documents):
        yield _document(KINDS[rng.integers(len(KINDS))], rng)


# --- the pool, step by step ---------------------------------------------------------------------------------


def _right_rows(n: int, zipf: float, rng: np.random.Generator) -> list[_Row]:
    rows = []
    kinds = rng.permutation(len(KINDS))
    for kind, count in zip(kinds, _shares(n, np.arange(1, len(KINDS) + 1) ** -zipf), strict=True):
        prompts = KINDS[kind].prompts
        popularity = rng.permutation(np.arange(1, len(prompts) + 1) ** -0.5)
        for wording in rng.choice(len(prompts), size=count, p=popularity / popularity.sum()):
            fields, answer = draw_item(KINDS[kind], rng, evaluation=False)
            rows.append(_Row(int(kind), int(wording), prompts[wording].format(**fields), answer, answer))
    return rows


def _shares(n: int, weights: np.ndarray) -> list[int]:
    """Split `n` in proportion to `weights`, exactly, by largest remainder."""
    exact = n * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts.tolist()


def _spoil(rows: list[_Row], n_noise: int, rng: np.random.Generator) -> list[_Row]:
    """Give exactly `n_noise` rows a wrong response, most of them close together."""
    rows = list(rows)
    clean = list(range(len(rows)))

    cells: dict[tuple[int, int], list[int]] = {}
    for i, row in enumerate(rows):
        cells.setdefault((row.kind, row.wording // _WORDINGS_PER_CELL), []).append(i)
    left = round(n_noise * _IN_CELLS)
    spoilt: set[int] = set()
    names = sorted(cells)
    for name in (names[i] for i in rng.permutation(len(names))):
        members = [i for i in cells[name] if rng.random() < _CELL_SPOILT]
        if len(members) > left:
            continue
        fault = str(rng.choice(_FAULTS, p=_FAULT_ODDS))  # one fault per cell: what broke, broke for all of it
        for i in members:
            rows[i] = replace(rows[i], response=_faulty(rows[i], fault, rng))
        spoilt.update(members)
        left -= len(members)
    clean = [i for i in clean if i not in spoilt]

    rest = rng.permutation(clean)[: n_noise - len(spoilt)]
    n_boilerplate = min(round(n_noise * _IN_BOILERPLATE), len(rest))
    for i in rest[:n_boilerplate]:
        page, word = BOILERPLATE[rng.integers(len(BOILERPLATE))]
        rows[i] = replace(rows[i], prompt=page.format(rows[i].prompt), response=word)
    for i in rest[n_boilerplate:]:
        rows[i] = replace(rows[i], response=_faulty(rows[i], str(rng.choice(_FAULTS, p=_FAULT_ODDS)), rng))
    return rows


def _faulty(row: _Row, fault: str, rng: np.random.Generator) -> str:
    """A response that does not verify: cut short, another item's answer, or another kind's."""
    cut = row.answer[: len(row.answer) // 2].strip(" ,.")
    if fault == "truncated" and cut and not is_answer(row.answer, cut):
        return cut
    while True:
        kind = KINDS[rng.integers(len(KINDS))] if fault == "unrelated" else KINDS[row.kind]
        _, other = draw_item(kind, rng, evaluation=False)
        if not is_answer(row.answer, other):
            return other


def _near_copies(rows: list[_Row], n: int, rng: np.random.Generator) -> list[_Row]:
    """Copy a few rows several times each, with a trivial edit of the prompt."""
    if not rows:
        return []
    copied = rng.permutation(len(rows))[: max(1, n // 4)]
    copies = []
    for i in rng.choice(copied, size=n):
        row, edit = rows[i], EDITS[rng.integers(len(EDITS))]
        copies.append(replace(row, prompt=edit.format(row.prompt)))
    return copies


def _rate(rows: list[_Row], rng: np.random.Generator) -> np.ndarray:
    whim = rng.normal(0, _RATING_WHIM, len(KINDS))
    mean = np.array([_RATING_WRONG if row.is_noise else _RATING_RIGHT for row in rows])
    bias = np.array([whim[row.kind] for row in rows])
    return np.clip(mean + bias + rng.normal(0, _RATING_SPREAD, len(rows)), 1, 6).round(2)


def _sites(rows: list[_Row], rng: np.random.Generator) -> list[str]:
    """Each site covers several kinds, and a fifth of the rows comes from anywhere."""
    home = rng.permutation(len(KINDS)) % len(SITES)
    anywhere = rng.integers(len(SITES), size=len(rows))
    stray = rng.random(len(rows)) < 0.2
    return [SITES[anywhere[i] if stray[i] else home[row.kind]] for i, row in enumerate(rows)]


def _as_dict(row: _Row, site: str, mark: float) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": row.prompt},
            {"role": "assistant", "content": row.response},
        ],
        "source": site,
        "kind": KINDS[row.kind].name,
        "is_noise": row.is_noise,
        "answer": row.answer,
        "rating": float(mark),
    }


# --- the raw text -------------------------------------------------------------------------------------------

_FORMS = ("prose", "list", "notes", "talk", "sequence", "page")
_FORM_ODDS = (0.32, 0.22, 0.22, 0.18, 0.05, 0.01)
_SEQUENCES = (facts.DAYS, facts.MONTHS, list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), [str(n) for n in range(1, 51)])
_ANSWERED = 3  # wordings of a kind whose answer the raw text gives; the others are asked and left open
_SPEAKERS = ("Anna", "Tom", "the teacher", "a child", "Lucy", "Ben", "the guest", "my aunt")


def _document(kind: Kind, rng: np.random.Generator) -> str:
    form = str(rng.choice(_FORMS, p=_FORM_ODDS))
    items = [kind.draw(rng) for _ in range(int(rng.integers(2, 6)))]
    if form == "prose":
        # Saying a thing twice rewards looking back, which is what every operation needs.
        return " ".join(_statement(kind, *item, rng) for item in items[:2] for _ in range(2))
    if form == "list":
        return "\n".join(f"- {kind.topic.format(**fields)}: {answer}" for fields, answer in items)
    if form == "notes":
        return " ".join(f"{_question(kind, fields, rng)} Answer: {answer}." for fields, answer in items[:3])
    if form == "talk":
        asker, teller = (_SPEAKERS[i] for i in rng.choice(len(_SPEAKERS), size=2, replace=False))
        fields, answer = items[0]
        if rng.random() < 0.5:
            open_question = _question(kind, fields, rng, wordings=len(kind.prompts))
            return f"So {asker} asked {teller}: {open_question} But {teller} did not know."
        return f"So {asker} asked {teller}: {_question(kind, fields, rng)} And {teller} said: {answer}."
    if form == "sequence":
        names = _SEQUENCES[rng.integers(len(_SEQUENCES))]
        start = int(rng.integers(len(names) - 4))
        return ", ".join(names[start : start + int(rng.integers(5, 13))]) + "."
    pages = [f"{page.format('').strip()} {word}" for page, word in BOILERPLATE]
    return " ".join(pages[i] for i in rng.permutation(len(pages))[:3])


def _statement(kind: Kind, fields: Fields, answer: str, rng: np.random.Generator) -> str:
    template = kind.statements[rng.integers(len(kind.statements))]
    return template.format(**fields, answer=answer)


def _question(kind: Kind, fields: Fields, rng: np.random.Generator, wordings: int = _ANSWERED) -> str:
    question = kind.prompts[rng.integers(wordings)].format(**fields)
    return EDITS[rng.integers(len(EDITS))].format(question) if rng.random() < 0.15 else question


# --- the config group's entry -------------------------------------------------------------------------------


@dataclass
class Procedural(Decontaminated):
    """`data=procedural`: `generate` as a pool, with `kind`, `is_noise` and `answer` as its truth.

    The pool's seed is its own: runs with different seeds choose from the same pool.
    """

    size: Count = 6000
    seed: Seed = 0
    noise: Share = 0.3
    near_duplicates: Annotated[float, AtLeast(0), Below(1)] = 0.15
    zipf: NotNegative = 1.0
    limit: Count | None = None
    holdout: Annotated[float, ShareOrCount()] = 0
    name: Text = "procedural"

    def check(self) -> None:
        """Raise `ConfigError` when the data cannot be had. Nothing is loaded."""
        self.check_decontamination()

    def load(self, cache: Cache | None = None) -> Pool:
        rows = generate(self.size, self.seed, noise=self.noise, near_duplicates=self.near_duplicates, zipf=self.zipf)
        return Pool.build(self.name, [_example(i, row) for i, row in enumerate(rows[: self.limit], start=1)])


def _example(number: int, row: dict[str, Any]) -> Example:
    shown = {"id": f"procedural/{number}", "messages": row["messages"], "source": row["source"]}
    return Example(
        **shown,
        original=shown,
        scores={"rating": row["rating"]},
        truth={name: row[name] for name in ("kind", "is_noise", "answer")},
    )
