"""Rounds of draws steered by feedback: the weights against Eqs. 4 to 6, the loop with a scripted and a real model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import assume, given, settings

from dsel import questions
from dsel.cache import Cache
from dsel.clusterer.base import Clustering
from dsel.config_groups import GROUPS, register
from dsel.constraints import shown
from dsel.data.procedural import generate
from dsel.errors import ConfigError
from dsel.experiment import Experiment
from dsel.model.causal_lm import CausalLM
from dsel.pool import Message, Pool
from dsel.record.writer import Record
from dsel.scorer.none import NoScorer
from dsel.selector.base import Choose, Selection, Selector, Step
from dsel.selector.feedback.base import Feedback
from dsel.selector.feedback.verifier import Verifier
from dsel.selector.iterative import Iterative, shares
from dsel.selector.sampling import update
from dsel.shards import HERE, Map
from dsel.study import Study
from tests.conftest import QUICK, ROOT, checked, make_pool
from tests.scorer.pools import pool_of
from tests.test_study import Bench

# --- the weights ---


def by_hand(
    weights: Sequence[float], clusters: Sequence[int], feedback: Sequence[float], *, normalise: str, accumulate: bool
) -> list[float]:
    """Eqs. 5 and 6 cluster by cluster, in so many digits that nothing over- or underflows."""
    with localcontext(Context(prec=60)):
        w: list[Any] = [Decimal(float(x)) for x in weights]
        members: dict[int, list[Any]] = {}
        for j, s in zip(clusters, feedback, strict=True):
            members.setdefault(int(j), []).append(Decimal(float(s)))
        mean = {j: sum(found) / len(found) for j, found in members.items()}
        positive = {j: s.exp() if normalise == "softmax" else s for j, s in mean.items()}
        share = {j: s / sum(positive.values()) * (w[j] if accumulate else 1) for j, s in positive.items()}
        left, total = sum(w[j] for j in mean), sum(share.values())
        return [float(left * share[j] / total if j in mean and total else w[j]) for j in range(len(w))]


@st.composite
def rounds_heard(draw: st.DrawFn, *, lowest: float = -30, highest: float = 30) -> tuple[Any, ...]:
    """Weights of k clusters, some of them zero, that sum to one; the clusters of m answers, and their feedback."""
    k, m = draw(st.integers(1, 8)), draw(st.integers(1, 20))
    w = np.array(draw(st.lists(st.sampled_from([0.0, 1e-6, 0.1, 1.0, 3.0]), min_size=k, max_size=k)))
    w[draw(st.integers(0, k - 1))] = 1
    clusters = np.array(draw(st.lists(st.integers(0, k - 1), min_size=m, max_size=m)))
    feedback = np.array(draw(st.lists(st.floats(lowest, highest, width=32), min_size=m, max_size=m)))
    return w / w.sum(), clusters, feedback


@given(case=rounds_heard(), accumulate=st.booleans())
@settings(deadline=None, max_examples=200)
def test_weights_are_those_of_the_equations(case: Any, accumulate: bool) -> None:
    ours, means = update(*case, accumulate=accumulate)
    np.testing.assert_allclose(ours, by_hand(*case, normalise="softmax", accumulate=accumulate), rtol=1e-9, atol=1e-300)
    for j, mean in enumerate(means):
        own = case[2][case[1] == j]
        assert np.isnan(mean) if not len(own) else mean == pytest.approx(own.mean(), abs=1e-9)


@given(case=rounds_heard(lowest=-1e4, highest=1e4), accumulate=st.booleans())
@settings(deadline=None, max_examples=200)
def test_extreme_feedback_neither_overflows_nor_loses_weight(case: Any, accumulate: bool) -> None:
    with np.errstate(over="raise", invalid="raise"):
        ours, _ = update(*case, accumulate=accumulate)
    assert np.isfinite(ours).all() and (ours >= 0).all()
    assert ours.sum() == pytest.approx(1)
    np.testing.assert_allclose(ours, by_hand(*case, normalise="softmax", accumulate=accumulate), rtol=1e-7, atol=1e-300)


@given(case=rounds_heard(lowest=0), accumulate=st.booleans())
@settings(deadline=None, max_examples=100)
def test_without_normalising_eq_6_is_taken_as_it_stands(case: Any, accumulate: bool) -> None:
    assume(case[2].any())
    ours, _ = update(*case, normalise="none", accumulate=accumulate)
    np.testing.assert_allclose(ours, by_hand(*case, normalise="none", accumulate=accumulate), rtol=1e-9)


def test_two_clusters_by_hand() -> None:
    heard = ([0, 0, 1], [1.0, 2.0, 0.5])  # means 1.5 and 0.5
    np.testing.assert_allclose(update([0.2, 0.8], *heard, normalise="none")[0], [0.3 / 0.7, 0.4 / 0.7])
    np.testing.assert_allclose(update([0.2, 0.8], *heard, normalise="none", accumulate=False)[0], [0.75, 0.25])
    e = np.e
    np.testing.assert_allclose(update([0.2, 0.8], *heard)[0], [0.2 * e / (0.2 * e + 0.8), 0.8 / (0.2 * e + 0.8)])
    np.testing.assert_allclose(update([0.2, 0.8], *heard, accumulate=False)[0], [e / (e + 1), 1 / (e + 1)])


@pytest.mark.parametrize("feedback", [[-0.1, 1.0], [0.0, 0.0]])
def test_without_normalising_negative_feedback_is_refused(feedback: list[float]) -> None:
    with pytest.raises(ConfigError, match="normalise=none .*: use softmax"):
        update([0.5, 0.5], [0, 1], feedback, normalise="none")


@given(case=rounds_heard(), accumulate=st.booleans())
@settings(deadline=None, max_examples=100)
def test_nobody_answered_nothing_changed(case: Any, accumulate: bool) -> None:
    weights, clusters, feedback = case
    ours, means = update(*case, accumulate=accumulate)
    silent = np.setdiff1d(np.arange(len(weights)), clusters)
    np.testing.assert_array_equal(ours[silent], weights[silent])
    assert np.isnan(means[silent]).all()
    assert ours.sum() == pytest.approx(1, abs=1e-12)


@given(case=rounds_heard(lowest=-5, highest=5), accumulate=st.booleans(), more=st.floats(0.5, 5), which=st.integers(0))
@settings(deadline=None, max_examples=100)
def test_more_feedback_is_more_weight(case: Any, accumulate: bool, more: float, which: int) -> None:
    weights, clusters, feedback = case
    raised = feedback.copy()
    raised[which % len(feedback)] += more
    before, _ = update(weights, clusters, feedback, accumulate=accumulate)
    after, _ = update(weights, clusters, raised, accumulate=accumulate)
    j = clusters[which % len(feedback)]
    others = np.arange(len(weights)) != j
    assert (after[others] <= before[others] + 1e-15).all()
    if 1e-3 < before[j] < before[np.unique(clusters)].sum() - 1e-3:
        assert after[j] > before[j]


@given(case=rounds_heard(), accumulate=st.booleans(), shift=st.floats(-50, 50))
@settings(deadline=None, max_examples=100)
def test_what_all_references_have_in_common_changes_nothing(case: Any, accumulate: bool, shift: float) -> None:
    weights, clusters, feedback = case
    ours = [update(weights, clusters, feedback + c, accumulate=accumulate)[0] for c in (0, shift)]
    np.testing.assert_allclose(ours[1], ours[0], rtol=1e-9, atol=1e-300)


def test_feedback_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="feedback"):
        update([0.5, 0.5], [0, 1], [1.0, np.nan])


@given(budget=st.integers(1, 10_000), rounds=st.integers(1, 50))
def test_shares_are_equal_but_for_one(budget: int, rounds: int) -> None:
    sizes = shares(budget, rounds)
    assert len(sizes) == rounds
    assert sum(sizes) == budget
    assert max(sizes) - min(sizes) <= 1


# --- the rounds ---


@dataclass
class Given:
    """Clusters that are known."""

    labels: tuple[int, ...]

    def cluster(self, x: np.ndarray) -> Clustering:
        k = max(self.labels) + 1
        return Clustering(np.array(self.labels), np.zeros((k, 2), np.float32), np.zeros(len(x), np.float32))


@dataclass
class Told(Feedback):
    """The feedback is known for each example, whatever is answered."""

    values: np.ndarray
    heard: list[tuple[list[list[int]], list[str], list[str]]] = field(default_factory=list)

    def score(self, study: Study, learner: Any, rounds: Sequence[np.ndarray], answers: Sequence[str]) -> np.ndarray:
        chosen = np.concatenate(rounds)
        self.heard.append(([r.tolist() for r in rounds], study.pool.take(chosen).responses, list(answers)))
        return self.values[chosen]


@dataclass
class Scripted:
    """Stands in for the learner: its answer says what was asked, and how often it had been trained by then."""

    has_engine = False

    trained: list[list[int]] = field(default_factory=list)
    calls: list[list[list[Message]]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    patience: int = 10**6  # calls before it is killed

    @property
    def state(self) -> dict[str, Any]:
        return {"trained": self.trained}

    def snapshot(self) -> Scripted:
        return self

    def fit(self, step: Step) -> None:
        self.trained.append(step.examples.tolist())

    def generate(self, prompts: Sequence[list[Message]], **options: Any) -> list[str]:
        if len(self.calls) == self.patience:
            raise KeyboardInterrupt
        self.calls.append(list(prompts))
        self.options = options
        return [f"{len(self.trained)}: {prompt[-1]['content']}" for prompt in prompts]

    @property
    def asked(self) -> list[str]:
        return [prompt[-1]["content"] for call in self.calls for prompt in call]


def steps(selector: Selector, study: Study, learner: Scripted) -> list[Choose]:
    """The loop of an experiment."""
    selector.check()
    rounds: list[Choose] = []
    for step in selector.steps(study, learner):  # type: ignore[arg-type]
        assert isinstance(step, Choose)
        rounds.append(step)
        learner.fit(step)
    return rounds


def play(selector: Selector, study: Study, learner: Scripted) -> list[Selection]:
    """What the rounds of an experiment chose."""
    return [step.selection for step in steps(selector, study, learner)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@dataclass
class Wave:
    """Quality that differs, but not by much."""

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> np.ndarray:
        return np.sin(np.arange(len(pool))).astype(np.float32)


N, K = 60, 4


def problem(bench: Bench, *, seed: int = 0, **parts: Any) -> Study:
    """60 examples in 4 clusters, dealt out in turn."""
    labels = tuple(i % K for i in range(N))
    given = {"pool": make_pool(N), "budget": 24, "clusterer": Given(labels), "scorer": Wave()}
    return bench.study(**{**given, "rng": np.random.default_rng(seed), **parts})


def told(*by_cluster: float) -> Told:
    return Told(np.array([by_cluster[i % K] for i in range(N)]))


@pytest.mark.parametrize(("budget", "rounds"), [(24, 3), (25, 3), (7, 7), (60, 4), (59, 2), (5, 1), (1, 1)])
@pytest.mark.parametrize("restart", ["base", "continue"])
def test_the_budget_is_met_in_equal_rounds_without_repeats(
    bench: Bench, budget: int, rounds: int, restart: str
) -> None:
    chosen = play(
        Iterative(told(1, 0, -1, 5), rounds=rounds, restart=restart), problem(bench, budget=budget), Scripted()
    )
    assert [len(s.indices) for s in chosen] == shares(budget, rounds)
    everything = np.concatenate([s.indices for s in chosen])
    assert len(set(everything.tolist())) == budget
    assert everything.min() >= 0 and everything.max() < N


def test_weights_follow_the_feedback_round_by_round(bench: Bench) -> None:
    feedback, notes = told(2, 0, -1, 0.5), {}
    feedback.values = feedback.values + np.linspace(-1, 1, N)  # so that who was chosen matters
    study = problem(bench, note=lambda table, round, columns: notes.update({(table, round): columns}))
    chosen = play(Iterative(feedback), study, Scripted())
    weights, labels, so_far = [1 / K] * K, study.clustering.labels, np.empty(0, dtype=int)
    for number, selection in enumerate(chosen, 1):
        new = selection.indices
        np.testing.assert_array_equal(selection.clusters, labels[new])
        np.testing.assert_allclose(selection.weights, np.array(weights)[labels[new]])
        np.testing.assert_array_equal(selection.scores, study.quality_or_fail()[new])
        drawn = np.bincount(labels[new], minlength=K)
        assert np.abs(drawn - 8 * np.array(weights)).max() < 1
        note = notes["weights", number]
        np.testing.assert_allclose(note["weight"], weights)
        np.testing.assert_array_equal(note["chosen"], drawn)
        np.testing.assert_array_equal(note["size"], [N // K] * K)
        so_far = np.append(so_far, new)
        weights = by_hand(weights, labels[so_far], feedback.values[so_far], normalise="softmax", accumulate=True)
    assert {round for _, round in notes} == {1, 2, 3}
    assert {round for table, round in notes if table != "weights"} == {1, 2}
    answers = notes["answers", 2]
    np.testing.assert_array_equal(answers["index"], so_far[:16])
    np.testing.assert_array_equal(answers["feedback"], feedback.values[so_far[:16]])
    assert list(answers["answer"]) == [f"2: Say the number {i}." for i in so_far[:16]]
    heard = notes["feedback", 2]
    np.testing.assert_array_equal(heard["answered"], np.bincount(labels[so_far[:16]], minlength=K))
    assert heard["feedback"][0] == pytest.approx(answers["feedback"][labels[so_far[:16]] == 0].mean())


def test_the_released_codes_weights_forget(bench: Bench) -> None:
    chosen = play(Iterative(told(3, 0, 0, 0), accumulate=False), problem(bench), Scripted())
    softmax = np.exp([3, 0, 0, 0]) / (np.exp(3) + 3)
    for selection in chosen[1:]:
        np.testing.assert_allclose(selection.weights, softmax[selection.clusters])


def test_uniform_draws_inside_clusters_read_no_quality(bench: Bench) -> None:
    """The released code's: the same clusters as by quality, from the same weights, but whoever is in them."""
    uniform = Iterative(told(3, 0, 0, 0), draw="uniform")
    assert "quality" not in uniform.needs and "quality" in Iterative(told(1, 1, 1, 1)).needs
    chosen = play(uniform, problem(bench, scorer=NoScorer()), Scripted())
    assert [len(selection.indices) for selection in chosen] == [8, 8, 8]
    assert all(selection.scores is None for selection in chosen)
    assert "score" not in [name for name, _ in bench.seen]
    counts = np.zeros(N)
    for seed in range(300):
        (one,) = play(Iterative(told(1, 1, 1, 1), rounds=1, draw="uniform"), problem(bench, seed=seed), Scripted())
        counts[one.indices] += 1
    assert abs(counts - 120).max() < 5 * np.sqrt(300 * 0.4 * 0.6)  # 24 of 60, each as often as any


def test_the_released_code_has_a_name_of_its_own() -> None:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        selector = compose("config", overrides=["selector=iterative_code"]).selector
    assert (selector.draw, selector.guide_epochs, selector.turn) == ("uniform", 3, "first")
    assert not selector.accumulate
    assert selector.feedback.scorer.hub == "weqweasdas/hh_rlhf_rm_open_llama_3b"
    made = instantiate(selector, _convert_="all")
    assert made.needs == {"clustering", "model"}


def test_a_cluster_of_poor_references_is_left(bench: Bench) -> None:
    chosen = play(Iterative(told(0, 0, -50, 0)), problem(bench), Scripted())
    assert [2 in set(np.asarray(s.clusters).tolist()) for s in chosen] == [True, False, False]


@pytest.mark.parametrize("scope", ["selected", "round"])
def test_who_is_answered(bench: Bench, scope: str) -> None:
    feedback, learner = told(1, 2, 3, 4), Scripted()
    chosen = [s.indices.tolist() for s in play(Iterative(feedback, scope=scope), problem(bench), learner)]
    wanted = [chosen[:1], chosen[:2]] if scope == "selected" else [chosen[:1], chosen[1:2]]
    assert [rounds for rounds, _, _ in feedback.heard] == wanted  # and nobody after the last round
    for number, (rounds, responses, answers) in enumerate(feedback.heard, 1):
        everybody = sum(rounds, [])
        assert responses == [f"number {i}" for i in everybody]
        assert answers == [f"{number}: Say the number {i}." for i in everybody]
    assert sorted(learner.asked) == sorted(f"Say the number {i}." for rounds in wanted for i in sum(rounds, []))


@pytest.mark.parametrize("final", ["retrain", "last"])
@pytest.mark.parametrize("restart", ["base", "continue"])
def test_what_each_round_trains_on(bench: Bench, restart: str, final: str) -> None:
    selector = Iterative(told(0, 0, 0, 0), restart=restart, final=final, guide_epochs=2)
    chosen = steps(selector, problem(bench), Scripted())
    one, two, three = (step.selection.indices.tolist() for step in chosen)
    guides = {
        "base": [(one, 2, True), (one + two, 2, True), (one + two + three, 2, True)],
        "continue": [(one, 2, True), (two, 2, False), (three, 2, False)],
    }[restart]
    expected = [*guides[:2], (one + two + three, None, True)] if final == "retrain" else guides
    ours = []
    for step in chosen:
        assert step.training.part == (1, 1)
        ours.append((step.examples.tolist(), step.training.epochs, step.training.restart))
    assert ours == expected


@pytest.mark.parametrize("turn", ["first", "last"])
def test_which_turn_of_a_conversation_is_answered(bench: Bench, turn: str) -> None:
    pool = pool_of(*([(f"ask {i}", f"say {i}"), (f"ask {i} again", f"say {i} again")] for i in range(N)), system="Be.")
    feedback, learner = told(0, 1, 2, 3), Scripted()
    chosen = play(Iterative(feedback, rounds=2, turn=turn), problem(bench, pool=pool), learner)
    ends = "" if turn == "first" else " again"
    assert {len(prompt) for call in learner.calls for prompt in call} == {2 if turn == "first" else 4}
    assert sorted(learner.asked) == sorted(f"ask {i}{ends}" for i in chosen[0].indices)
    assert feedback.heard[0][1] == [f"say {i}{ends}" for i in chosen[0].indices]


def test_same_seed_same_rounds_and_another_seed_others(bench: Bench) -> None:
    one, two, three = (
        [s.indices.tolist() for s in play(Iterative(told(1, 0, 2, 0)), problem(bench, seed=seed), Scripted())]
        for seed in (0, 0, 1)
    )
    assert one == two != three


def test_the_options_of_answers_reach_the_model(bench: Bench) -> None:
    learner = Scripted()
    options = {"max_new_tokens": 7, "max_prompt": 99, "temperature": 0.5}
    play(Iterative(told(0, 0, 0, 0), rounds=2, **options), problem(bench), learner)
    assert learner.options == options


def test_answers_are_kept_as_long_as_nothing_changes(bench: Bench) -> None:
    def asked(**options: Any) -> int:
        learner = Scripted()
        play(Iterative(told(0, 0, 0, 0), rounds=2, **options), problem(bench), learner)
        return len(learner.asked)

    assert asked() == 12
    assert asked() == 0
    assert asked(max_new_tokens=9) == asked(max_prompt=9) == asked(temperature=0.1) == 12


def test_a_killed_generation_goes_on_from_its_shards(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWERS_A_SHARD", 5)
    pool = make_pool(12, prompt="number {i} " + "of many " * 3, answer="ä{i}\n\u2028")
    selector, study = Iterative(told(0, 0, 0, 0)), bench.study(pool=pool)
    whole = selector._answers(bench.study(pool=make_pool(3)), Scripted(), pool)  # type: ignore[arg-type]
    assert whole == [f"0: {p[-1]['content']}" for p in pool.prompts]
    killed, second = Scripted(trained=[[1]], patience=1), Scripted(trained=[[1]])
    with pytest.raises(KeyboardInterrupt):
        selector._answers(study, killed, pool)  # type: ignore[arg-type]
    assert len(killed.asked) == 5
    ours = selector._answers(study, second, pool)  # type: ignore[arg-type]
    assert sorted(killed.asked + second.asked) == sorted(p[-1]["content"] for p in pool.prompts)
    assert ours == [text.replace("0: ", "1: ") for text in whole]
    third = Scripted(trained=[[1]])
    assert selector._answers(study, third, pool) == ours  # type: ignore[arg-type]
    assert not third.calls


def test_a_killed_run_repeats_its_rounds_and_asks_only_what_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = play(Iterative(told(1, 0, 2, 0)), problem(Bench(bench.folder / "other")), Scripted())
    monkeypatch.setattr(questions, "ANSWERS_A_SHARD", 3)
    killed, again = Scripted(patience=5), Scripted()  # 3 shards for the first round, 2 of the 6 of the second
    with pytest.raises(KeyboardInterrupt):
        play(Iterative(told(1, 0, 2, 0)), problem(bench), killed)
    chosen = play(Iterative(told(1, 0, 2, 0)), problem(bench), again)
    assert [s.indices.tolist() for s in chosen] == [s.indices.tolist() for s in undisturbed]
    assert len(killed.asked) == 8 + 6
    assert len(again.asked) == 16 - 6


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rounds", 0), ("rounds", -1), ("rounds", 1.5), ("rounds", None), ("guide_epochs", 0), ("restart", "last"),
        ("final", "base"), ("scope", "all"), ("turn", "every"), ("normalise", None), ("normalise", "minmax"),
        ("max_new_tokens", 0), ("max_new_tokens", 0.5), ("max_prompt", 0), ("temperature", -0.1),
    ],
)  # fmt: skip
def test_options_are_checked(option: str, value: Any) -> None:
    checked(Iterative(told(0, 0, 0, 0)), "selector")
    with pytest.raises(ConfigError, match=f"selector.{option}={shown(value)}: ") as caught:
        checked(Iterative(told(0, 0, 0, 0), **{option: value}), "selector")
    assert "\n" not in str(caught.value)


def test_the_feedbacks_options_are_checked_too() -> None:
    class Refuses(Told):
        def check(self) -> None:
            raise ConfigError("not here")

    with pytest.raises(ConfigError, match="not here"):
        Iterative(Refuses(np.zeros(1))).check()


def test_more_rounds_than_examples_are_refused(bench: Bench) -> None:
    assert len(play(Iterative(told(0, 0, 0, 0), rounds=24), problem(bench), Scripted())) == 24
    bench.stages.clear()
    with pytest.raises(ConfigError, match="selector.rounds=25: a budget of 24 leaves rounds without an example"):
        play(Iterative(told(0, 0, 0, 0), rounds=25), problem(bench), Scripted())
    assert bench.stages == []  # nothing was computed to find out


def test_a_verifier_without_answers_is_refused_before_anything_is_computed(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="selector/feedback=verifier: the pool made carries no answers"):
        play(Iterative(Verifier()), problem(bench), Scripted())
    assert bench.stages == []


def test_negative_feedback_without_normalising_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="selector.normalise=none .*: use softmax"):
        play(Iterative(told(0, 0, -1, 0), normalise="none"), problem(bench), Scripted())


def test_quality_is_needed(bench: Bench) -> None:
    from dsel.scorer.none import NoScorer

    with pytest.raises(ConfigError, match="needs quality scores"):
        play(Iterative(told(0, 0, 0, 0)), problem(bench, scorer=NoScorer()), Scripted())


# --- the whole run ---


def experiment(spec: CausalLM, cache: Cache, *overrides: str) -> Experiment:
    """The quick run with the small model, and no evaluation."""
    register()
    small = [*QUICK, "data.size=150", "clusterer.k=4", "budget=20", "scorer=column", "scorer.name=rating"]
    small += ["evaluator=none", "tracker=none"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=[*small, *overrides])
    parts = {group: instantiate(config[group], _convert_="all") for group in GROUPS} | {"model": spec}
    return Experiment(**parts, budget=config.budget, seed=config.seed, cache=cache)


def run(spec: CausalLM, cache: Cache, folder: Path, *overrides: str) -> dict[str, Any]:
    """Its record, and as `tables` what its rounds noted."""
    folder.mkdir()
    made, record = experiment(spec, cache, *overrides), Record(folder, {}, {})
    made.check()
    made.run(record)
    tables = {path.stem: pq.read_table(path).to_pandas() for path in (folder / "rounds").glob("*.parquet")}
    choice = pq.read_table(folder / "selection.parquet").to_pandas()
    return {**json.loads((folder / "record.json").read_text()), "tables": tables, "choice": choice}


def test_a_run_with_a_real_model(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    """Its record tells what was drawn, heard and concluded, and each follows from the one before."""
    options = ["selector=iterative_perplexity", "selector.max_new_tokens=8"]
    one = run(spec, cache, tmp_path / "one", *options)
    assert [r["examples"] for r in one["rounds"]] == shares(20, 3) == [6, 7, 7]
    assert one["choice"]["index"].is_unique and len(one["choice"]) == 20
    assert [r["training"]["examples"] for r in one["rounds"]] == [6, 13, 20]
    weights, answers = one["tables"]["weights"], one["tables"]["answers"]
    current = np.full(4, 0.25)
    for number in (1, 2, 3):
        np.testing.assert_allclose(weights["weight"][weights["round"] == number], current, rtol=1e-9)
        if number < 3:
            heard = answers[answers["round"] == number]
            assert heard["index"].tolist() == one["choice"]["index"][one["choice"]["round"] <= number].tolist()
            assert np.isfinite(heard["feedback"]).all() and heard["feedback"].any()
            current = update(current, heard["cluster"].to_numpy(), heard["feedback"].to_numpy())[0]
    assert answers["round"].max() == 2
    stages = [s["name"] for s in one["stages"]]
    assert stages.count("generate") == stages.count("feedback") == 2 and stages.count("train") == 3
    choosing, training = one["cost"]["choosing"], one["cost"]["training"]
    passes = [r["training"]["flops"] for r in one["rounds"]]
    assert (choosing["parts"]["guides"]["flops"], training["flops"]) == (sum(passes[:2]), passes[2])
    assert min(choosing["parts"][name]["flops"] for name in ("generate", "feedback", "cluster")) > 0

    two = run(spec, cache, tmp_path / "two", *options)
    assert two["choice"].equals(one["choice"])
    assert two["tables"]["answers"].equals(answers)
    assert [s["cached"] for s in two["stages"] if s["name"] in ("generate", "feedback")] == [True] * 4
    assert two["cost"]["choosing"]["flops"] == choosing["flops"]  # what is found costs what it cost
    assert two["cost"]["choosing"]["parts"]["generate"] == {**choosing["parts"]["generate"], "cached": True}


def test_a_run_that_goes_on_with_its_guide_and_a_verifier(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    options = ["selector=iterative_verifier", "selector.rounds=2", "selector.max_new_tokens=8", "selector.scope=round"]
    ours = run(spec, cache, tmp_path / "run", *options, "selector.restart=continue", "selector.final=last")
    assert [r["training"]["examples"] for r in ours["rounds"]] == [10, 10]
    heard = ours["tables"]["answers"]
    assert heard["index"].tolist() == ours["choice"]["index"][:10].tolist()
    assert set(heard["feedback"]) <= {-1.0, 0.0, 1.0}


def test_near_duplicates_can_leave_before_the_rounds(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    then = ["selector=semdedup", "selector@selector.then=iterative_perplexity", "selector.then.rounds=2"]
    then += ["selector/feedback@selector.then.feedback=verifier", "selector.threshold=0.6"]
    ours = run(spec, cache, tmp_path / "run", *then, "selector.then.max_new_tokens=8")
    assert ours["choice"]["index"].is_unique and len(ours["choice"]) == 20
    assert ours["tables"]["answers"]["index"].tolist() == ours["choice"]["index"][:10].tolist()
    assert ours["rounds"][1]["training"]["examples"] == 20


def test_a_run_without_training_is_refused_in_one_line(dsel_run: Callable[..., Any], tmp_path: Path) -> None:
    options = ["experiments=quickstart", "trainer=none", "scorer=column", "scorer.name=rating", f"runs={tmp_path}"]
    for selector in (
        ["selector=iterative_perplexity"],
        ["selector=semdedup", "selector@selector.then=iterative_perplexity"],
    ):
        done = dsel_run(*options, *selector)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert "trainer=none has none to show" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, left",
    [
        pytest.param(["clusterer.k=256", "data.size=24000", "budget=0.05"], 1 / 2, id="purer clusters, more draws"),
        pytest.param([], 2 / 3, id="the laptop's 600 of 6,000"),
    ],
)
def test_a_verifier_steers_the_draws_away_from_noise(
    dsel_run: Callable[..., Any], tmp_path: Path, settings: list[str], left: float
) -> None:
    """Fewer draws fall on noise in each round, in the third at most `left` of the share in the first: five pools."""
    asked = ["selector=iterative_verifier", "selector.final=last", "evaluator=none", "tracker=none"]
    settings = [*asked, "selector.max_new_tokens=24", *settings]
    done = dsel_run("-m", "experiments=laptop", *settings, "seed=range(0,5)", f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    noise = []
    for file in tmp_path.glob("*/record.json"):
        config = json.loads(file.read_text())["config"]
        wrong = np.array([row["is_noise"] for row in generate(config["data"]["size"], config["seed"])])
        choice = pq.read_table(file.with_name("selection.parquet")).to_pandas()
        noise.append([wrong[choice["index"][choice["round"] == number]].mean() for number in (1, 2, 3)])
    assert len(noise) == 5
    first, second, third = np.mean(noise, axis=0)
    assert third < second < first
    assert third <= first * left
    assert all(last < start for start, _, last in noise)
