"""MIG: information gain over a graph of labels (Chen et al. 2025, ACL Findings)."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Indices, check_budget, finite_scores, unit_rows
from dsel.constraints import Above, Between, Count, Share, Text
from dsel.errors import ConfigError, need
from dsel.pool import Pool
from dsel.progress import tracked
from dsel.selector.base import Selection, Static
from dsel.study import Study
from dsel.words import words


def graph(labels: ArrayLike, threshold: float) -> Any:
    """How information spreads among labels: CSR float64[l, l], its columns sum to 1.

    labels [l, d]: their embeddings. Labels are joined where their cosine is `threshold` or more; each is with itself.
    """
    from scipy.sparse import csr_matrix

    cosine = (unit_rows(labels) @ unit_rows(labels).T).astype(np.float64)
    joined = np.where(cosine >= threshold, cosine, 0.0)
    np.fill_diagonal(joined, 1.0)
    return csr_matrix(joined / joined.sum(axis=0))


def greedy(
    labels: Any, quality: ArrayLike, spread: Any, budget: int, *, power: float = 0.8, gain: str = "gradient"
) -> Indices:
    """Take the example whose labels, times its quality, add the most information, `budget` times.

    The information of a choice is Σ over labels of φ(x), φ(x) = (x + 10⁻⁶)^power, where x is the sum of what its
    examples spread over the labels.

    Args:
        labels: CSR [n, l], which labels an example has, or how much of each.
        quality: float[n], not negative.
        spread: CSR [l, l], of `graph`.
        budget: how many are chosen.
        power: below 1, so that more of the same label counts less.
        gain: what an example adds by φ's `gradient` at x, as the released code has it, or the `exact` difference.

    Returns:
        int64[budget] in the order chosen; ties go to the lower index. What an example adds only falls, so an old value
        bounds the new one and few are computed again.
    """
    n = labels.shape[0]
    score = finite_scores(quality, n)
    if (score < 0).any():
        raise ValueError("quality must not be negative")
    budget = check_budget(budget, n)
    adds = labels.multiply(score[:, None]).tocsr() @ spread
    adds.sort_indices()
    starts, columns, data = adds.indptr.tolist(), adds.indices.astype(np.intp), adds.data
    there = np.zeros(adds.shape[1])
    slope = _slope(there, power)

    def value(i: int) -> float:
        row = slice(starts[i], starts[i + 1])
        at = columns[row]
        if gain == "gradient":
            return float(data[row].dot(slope[at]))
        return float((_phi(there[at] + data[row], power) - _phi(there[at], power)).sum())

    queue = [(-value(i), i, 0) for i in tracked(range(n), "information of each example", total=n, unit="examples")]
    heapq.heapify(queue)
    chosen: list[int] = []
    for taken in tracked(range(budget), "choosing by information", total=budget, unit="examples"):
        while queue[0][2] != taken:
            i = queue[0][1]
            heapq.heapreplace(queue, (-value(i), i, taken))
        i = heapq.heappop(queue)[1]
        chosen.append(i)
        row = slice(starts[i], starts[i + 1])
        there[columns[row]] += data[row]
        slope[columns[row]] = _slope(there[columns[row]], power)
    return np.array(chosen, dtype=np.int64)


def _phi(x: Doubles, power: float) -> Doubles:
    return (x + 1e-6) ** power


def _slope(x: Doubles, power: float) -> Doubles:
    return power * (x + 1e-6) ** (power - 1)


def labels_in(pool: Pool, column: str) -> tuple[Any, list[str]]:
    """What a column of the pool's files says of each example: CSR bool[n, l], and the l labels, sorted.

    A list of texts are labels, and so are the parts of a text between commas.

    Raises:
        ConfigError: where no example has any.
    """
    found = [_named(json.loads(text).get(column)) for text in pool.originals["json"]]
    names = sorted({name for row in found for name in row})
    need(bool(names), f"selector.labels={column}: no example has a label in that column")
    number = {name: i for i, name in enumerate(names)}
    return _indicators([[number[name] for name in row] for row in found], len(names)), names


def _named(value: Any) -> list[str]:
    parts: Sequence[Any] = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return list(dict.fromkeys(part.strip() for part in parts if isinstance(part, str) and part.strip()))


def frequent_words(pool: Pool, most: int, share: float) -> tuple[Any, list[str]]:
    """The same of words: the `most` frequent of those in two examples or more and in at most a `share` of them.

    Where there is none, of all.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    n = len(pool)
    for least, at_most in ((2, max(2, int(share * n))), (1, n)):
        counter = CountVectorizer(
            tokenizer=words, token_pattern=None, binary=True, min_df=least, max_df=at_most, max_features=most
        )
        try:
            found = counter.fit_transform(tracked(pool.texts, "words of the pool", total=n, unit="texts"))
        except ValueError:  # no word is left
            continue
        return found.tocsr().astype(np.float64), counter.get_feature_names_out().tolist()
    raise ConfigError("selector=mig: the examples have no words: name a column of labels, selector.labels")


def _indicators(rows: Sequence[Sequence[int]], width: int) -> Any:
    from scipy.sparse import csr_matrix

    starts = np.cumsum([0, *map(len, rows)])
    columns = [column for row in rows for column in row]
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(rows), width))


@dataclass
class Mig(Static):
    """`selector=mig`: by the labels of a column (`labels`), or the frequent words of the examples.

    threshold: the cosine of two labels' embeddings from which information spreads from one to the other. norm: an
    example's quality is shared out among its labels. power, gain: see `greedy`. max_words, max_share: see
    `frequent_words`. Quality below zero is shifted up to start at zero.
    """

    labels: Text | None = None
    threshold: Annotated[float, Between(-1, 1)] = 0.9
    norm: bool = False
    power: Annotated[float, Above(0), Between(0, 1)] = 0.8
    gain: Literal["gradient", "exact"] = "gradient"
    max_words: Count = 2000
    max_share: Share = 0.1

    needs: ClassVar[frozenset[str]] = frozenset({"quality", "embedder"})

    def select(self, study: Study) -> Selection:
        from scipy.sparse import diags

        quality = study.quality_or_fail()
        if self.labels is None:
            labels, names = frequent_words(study.pool, self.max_words, self.max_share)
        else:
            labels, names = labels_in(study.pool, self.labels)
        if self.norm:
            labels = diags(1 / np.maximum(1, np.diff(labels.indptr))) @ labels
        with tempfile.TemporaryDirectory() as folder:
            chats = [[{"role": "user", "content": name}] for name in names]
            spread = graph(np.array(study.embedder.embed(chats, Path(folder), study.engine)), self.threshold)
        shifted = quality - min(0.0, float(quality.min()))
        chosen = greedy(labels.tocsr(), shifted, spread, study.budget, power=self.power, gain=self.gain)
        return Selection(chosen, scores=quality[chosen])
