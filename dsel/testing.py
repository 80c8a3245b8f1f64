"""For those who write a component: whether it keeps what all of its group promise.

    from dsel.testing import check_selector

    def test_shortest() -> None:
        check_selector(Shortest())

It needs no model and no network, and takes seconds: a small pool is made, and a stand-in for the model in training.
What a scorer, an embedder or a clusterer gives is checked by `made_study`, as in a run.
"""

from __future__ import annotations

import copy
import math
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dsel.arrays import Doubles, Floats, Indices
from dsel.cache import Cache
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.embedder.base import Embedder
from dsel.errors import ConfigError
from dsel.evaluator.base import Evaluator, need_metrics
from dsel.pool import Example, Message, Pool, text_of
from dsel.resources import closure, need_known
from dsel.scorer.base import Scorer
from dsel.selector.base import Choose, Selector, Step, Train
from dsel.shards import HERE, Map
from dsel.study import Study
from dsel.targets.base import Target

MADE_TARGETS = 5
EPOCHS = 3.0  # the trainer's, where a selector does not say


def check_selector(
    selector: Selector,
    *,
    budgets: Sequence[int] | None = None,
    fills: bool = True,
    permutes: bool = False,
    pool: Pool | None = None,
    **parts: Any,
) -> None:
    """Run a selector on small pools, and fail with an AssertionError that says what it does not keep.

    Its choices are examples of the pool, none twice in a round (unless they say that they repeat), and meet the budget:
    all rounds together, or each round where every round chooses anew. The same seed gives the same steps, also when
    the same object is used again, and on a part of the pool it stays inside. It reads what it `needs`, and no more, and
    has trained and generated what it `plan`s.

    Args:
        selector: What is tried; its options are checked first.
        budgets: The numbers of examples to choose; by default from one to the whole pool.
        fills: Whether it meets its budget; one that may stop short only never goes beyond.
        permutes: Whether it promises the same examples when the pool comes in another order.
        pool: The examples to choose from, instead of 90 made-up ones.
        **parts: Of the `Study`, instead of those made here: `embedder`, `clusterer`, `scorer`.

    Raises:
        AssertionError: for the first promise that is not kept.
    """

    def stand_in() -> StandIn | None:
        return StandIn() if "model" in selector.needs else None

    selector.check()
    pool = made_pool() if pool is None else pool
    n, part, order = len(pool), np.arange(0, len(pool), 2), np.random.default_rng(0).permutation(len(pool))
    for budget in budgets or (1, 2, n // 3, n - 1, n):
        case = f"{type(selector).__name__} with a budget of {budget} of {n} examples"
        with tempfile.TemporaryDirectory() as folder:

            def problem(pool: Pool, budget: int = budget, folder: str = folder) -> Study:
                return made_study(Path(folder), pool, budget, **parts)

            fresh = copy.deepcopy(selector)
            study, learner = problem(pool), stand_in()
            steps = play(selector, study, learner)
            _check_choices(steps, n, budget, fills, case)
            _check_needs(selector, study, steps, case)
            _check_plan(selector, steps, learner, n, budget, fills, case)
            for again, how in ((selector, "used a second time"), (fresh, "made anew")):
                _check_same(steps, play(again, problem(pool), stand_in()), f"{case}, {how} with the same seed")
            if budget <= len(part):
                inside = play(selector, problem(pool).restrict(part), stand_in())
                _check_choices(inside, len(part), budget, fills, f"{case}, on {len(part)} of them")
            if permutes:
                moved = play(selector, problem(pool.take(order)), stand_in())
                _check_permuted(steps, moved, order, case)


def play(selector: Selector, study: Study, learner: StandIn | None) -> list[Step]:
    """The steps of a selector, each carried out by the stand-in before the next one is asked for."""
    name, steps = type(selector).__name__, []
    try:
        need_known(selector.needs, f"{name}.needs")
        for step in selector.steps(study, Unsaid(name) if learner is None else learner):  # type: ignore[arg-type]
            assert isinstance(step, (Choose, Train)), f"{name} yields {step!r}, no Choose and no Train"
            steps.append(step)
            if learner is not None:
                _check_indices(step.examples, len(study.pool), f"{name}: what the model is trained on")
                learner.fit(study.pool.take(step.examples))
    except ConfigError as error:
        raise AssertionError(f"{name}: {error}") from error
    return steps


def _check_choices(steps: Sequence[Step], n: int, budget: int, fills: bool, case: str) -> None:
    rounds = [step.selection for step in steps if isinstance(step, Choose)]
    assert rounds, f"{case}: it chooses nothing"
    for chosen in rounds:
        _check_indices(chosen.indices, n, f"{case}: its choice")
        m = len(chosen.indices)
        for name in ("clusters", "weights", "scores"):
            values = getattr(chosen, name)
            assert values is None or len(values) == m, f"{case}: {len(values)} {name} for {m} examples"
    for step in steps:
        _check_indices(step.examples, n, f"{case}: what the model is trained on")
    sizes = [len(chosen.indices) for chosen in rounds]
    if fills:
        assert sum(sizes) == budget or set(sizes) == {budget}, f"{case}: it chooses {' + '.join(map(str, sizes))}"
    assert max(sizes) <= budget, f"{case}: it chooses {max(sizes)} in a round"


def _check_indices(indices: Indices, n: int, what: str) -> None:
    kind = getattr(indices, "dtype", np.dtype(object)).kind
    assert kind in "iu", f"{what} is not an array of whole numbers but {indices!r}"
    assert indices.ndim == 1, f"{what} has the shape {list(indices.shape)}, and wants [m]: one index an example"
    assert len(indices), f"{what} is empty"
    inside = int(indices.min()) >= 0 and int(indices.max()) < n
    assert inside, f"{what} has indices from {indices.min()} to {indices.max()}, of {n} examples"


def _check_needs(selector: Selector, study: Study, steps: Sequence[Step], case: str) -> None:
    unsaid = set(study.computed) - set(closure(selector.needs))
    assert not unsaid, f"{case}: it reads {', '.join(sorted(unsaid))}, which its `needs` lack"
    warms_up = any(isinstance(step, Train) for step in steps)
    assert not warms_up or "model" in selector.needs, f"{case}: it has the model trained, which its `needs` lack"


def _check_plan(
    selector: Selector, steps: Sequence[Step], learner: StandIn | None, n: int, budget: int, fills: bool, case: str
) -> None:
    plan = selector.plan(n, budget, EPOCHS)
    planned = [(examples, float(epochs)) for examples, epochs in plan.trainings]
    done = [(len(step.examples), _epochs(step)) for step in steps]
    if fills:
        assert planned == done, f"{case}: it plans trainings of (examples, epochs) {planned}, and has {done}"
    assert len(planned) == len(done), f"{case}: it plans {len(planned)} trainings, and has {len(done)}"
    answered = 0 if learner is None else learner.answered
    assert plan.answers == answered, f"{case}: it plans {plan.answers} answers, and has {answered} generated"


def _epochs(step: Step) -> float:
    return EPOCHS if step.training.epochs is None else float(step.training.epochs)


def _check_same(steps: Sequence[Step], others: Sequence[Step], case: str) -> None:
    assert len(steps) == len(others), f"{case}: {len(others)} steps, not {len(steps)}"
    for number, (one, two) in enumerate(zip(steps, others, strict=True), 1):
        where = f"{case}: step {number}"
        assert type(one) is type(two) and one.training == two.training, f"{where} is {two}, not {one}"
        assert np.array_equal(one.examples, two.examples), f"{where} trains on other examples"
        if isinstance(one, Choose) and isinstance(two, Choose):
            for name in ("indices", "clusters", "weights", "scores"):
                values = getattr(one.selection, name), getattr(two.selection, name)
                same = values[0] is values[1] is None or np.array_equal(*values)
                assert same, f"{where} chooses other examples" if name == "indices" else f"{where} has other {name}"


def _check_permuted(steps: Sequence[Step], moved: Sequence[Step], order: Indices, case: str) -> None:
    for number, (one, two) in enumerate(zip(steps, moved, strict=True), 1):
        same = set(one.examples.tolist()) == set(order[two.examples].tolist())
        assert same, f"{case}: step {number} has other examples when the pool comes in another order"


def made_pool(n: int = 90) -> Pool:
    """n short examples of three sources, no two alike; every third is a conversation of two turns."""
    words = np.array("river stone cloud maple lantern copper violet harbor meadow amber falcon winter".split())
    rng, examples = np.random.default_rng(0), []
    for i in range(n):
        messages: list[Message] = []
        for turn in range(2 if i % 3 == 0 else 1):
            said = [" ".join(rng.choice(words, size=rng.integers(2, 9))) for _ in range(2)]
            messages.append({"role": "user", "content": f"Say {said[0]} {i} {turn}, please"})
            messages.append({"role": "assistant", "content": f"{said[1]} number {i}"})
        truth = {"answer": messages[-1]["content"] if i % 2 else "?"}  # half of the responses are right
        examples.append(Example(f"made-{i}", messages, f"source {i % 3}", {"number": i}, truth=truth))
    return Pool.build("made", examples)


@dataclass
class MadeTargets:
    """Stands for whatever targets come from."""

    def check(self) -> None:
        """Nothing can be missing."""

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target]:
        return pool, Target.of(made_pool(MADE_TARGETS))


def made_study(folder: Path, pool: Pool, budget: int, *, seed: int = 0, **parts: Any) -> Study:
    """A selection problem with its cache in `folder`; `parts` replace what is made up for it."""
    made: dict[str, Any] = {"embedder": Directions(), "scorer": Chance(), "verify": pool.verifier}
    made["clusterer"] = FaissKMeans(k=min(7, len(pool)), niter=10, nredo=1)
    made["targets"], made["target"] = MadeTargets(), Target.of(made_pool(MADE_TARGETS))
    return Study(pool.blind(), budget, np.random.default_rng(seed), **{**made, **parts}, cache=Cache(folder))


@cache
def _tokenizer() -> Any:
    from dsel.model.pretraining import train_tokenizer

    return train_tokenizer(made_pool().texts)


def number(text: str) -> float:
    """A number between 0 and 1 that is a text's own."""
    return (zlib.crc32(text.encode()) + 1) / (2**32 + 1)


@dataclass(kw_only=True)
class Directions(Embedder):
    """A direction at random for each text, always the same."""

    def encode(self, texts: list[str]) -> Floats:
        drawn = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
        return np.array(drawn, dtype=np.float32)


@dataclass
class Chance(Scorer):
    """A quality between 0 and 1 for each example, by its text alone."""

    def score(self, pool: Pool, scratch: Path, *more: Any) -> Floats:
        return np.array([number(text) for text in pool.texts], dtype=np.float32)


@dataclass
class StandIn:
    """Stands in for the model in training (`dsel.learner`): what it says depends on what it was trained on, alone."""

    trained: list[str] = field(default_factory=list)
    answered: int = 0

    engine: ClassVar[Map] = HERE
    model = None  # it has no weights, and no limit of positions
    has_engine = False
    parameters = 8

    @property
    def tokenizer(self) -> Any:
        """Words and letters, with the chat template of `model=tiny`."""
        return _tokenizer()

    @property
    def state(self) -> dict[str, Any]:
        return {"stand-in": list(self.trained)}

    def snapshot(self, **options: Any) -> Any:
        return self

    def fit(self, pool: Pool) -> None:
        self.trained.append(pool.fingerprint)

    def generate(self, prompts: Sequence[list[Message]], **options: Any) -> list[str]:
        self.answered += len(prompts)
        return [f"answer {len(self.trained)} to {text_of(prompt[-1])}" for prompt in prompts]

    def nll(self, conversations: Sequence[list[Message]], **options: Any) -> Doubles:
        return np.array([self._loss("\n".join(map(text_of, messages))) for messages in conversations])

    def rate(self) -> float:
        return 1e-4

    def gradients(self, conversations: Sequence[list[Message]], **options: Any) -> Floats:
        texts = [f"{self.trained} " + "\n".join(map(text_of, messages)) for messages in conversations]
        return np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts])

    def losses(self, encoded: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Doubles:
        return np.array([self._loss(str(list(ids))) for ids, _ in encoded])

    def _loss(self, text: str) -> float:
        return 1 + number(f"{self.trained} {text}")


class Unsaid:
    """Stands for the model where a selector's `needs` lack it."""

    def __init__(self, selector: str) -> None:
        self._selector = selector

    def __getattr__(self, name: str) -> Any:
        says = 'needs: ClassVar[frozenset[str]] = frozenset({"model"})'
        raise AssertionError(f"{self._selector} asks the model for `{name}`, and does not need it: {says}")


def check_evaluator(evaluator: Evaluator) -> None:
    """Run an evaluator on a stand-in for the model, and fail with an AssertionError that says what it does not keep.

    What it returns are `Metric`s by their names, each with a finite value, and the same ones when it is asked again.
    It gets thirty held-out examples, and a pool of sixty.

    Args:
        evaluator: What is tried; its options are checked first.

    Raises:
        AssertionError: for the first promise that is not kept.
    """
    name, pool = type(evaluator).__name__, made_pool()
    evaluator.check()
    found = []
    try:
        need_metrics(evaluator)
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                cache, parts = Cache(Path(folder, "cache")), (pool.take(range(30, 90)), pool.take(range(30)))
                evaluator.need_tasks(cache)
                found.append(evaluator.evaluate(StandIn(), *parts, cache, Path(folder)))
            need_metrics(evaluator, found[-1])
    except ConfigError as error:
        raise AssertionError(f"{name}: {error}") from error
    for metric, one in found[0].items():
        assert math.isfinite(one.value), f"{name}: {metric} is {one.value}"
        again = found[1].get(metric)
        same = again is not None and again.value == one.value
        assert same, f"{name}: {metric} is {one}, and {again} when asked again"
