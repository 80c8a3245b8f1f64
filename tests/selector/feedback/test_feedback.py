"""S of Eq. 4 from each kind of feedback: against one text at a time, one score at a time, and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.pool import Example, Pool
from dsel.scorer import base, endpoint
from dsel.scorer.base import Scorer
from dsel.scorer.judge import Judge
from dsel.scorer.reward import Reward
from dsel.selector.feedback.base import Feedback
from dsel.selector.feedback.perplexity import Perplexity
from dsel.selector.feedback.scored import Scored
from dsel.selector.feedback.verifier import Verifier
from dsel.selector.iterative import Iterative
from dsel.shards import HERE, Map
from tests.conftest import ROOT, checked
from tests.scorer.pools import MIXED, pool_of
from tests.scorer.test_judge import KEY, Reply, good, grade, judge, serving
from tests.scorer.test_reward import build as reward_model
from tests.selector.test_iterative import Scripted, play, problem
from tests.test_study import Bench

ROUNDS = [np.array([4, 0]), np.array([6, 3, 1])]  # of the examples of `pool_of(*MIXED)`
CHOSEN = np.concatenate(ROUNDS)
ANSWERS = ["y", "Five .", "third " * 9, "It is blue.\nAnd deep.", ""]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def answered(answers: list[str]) -> list[list[dict[str, str]]]:
    """The conversations of `CHOSEN` with these last turns."""
    messages = pool_of(*MIXED).messages
    return [
        [*messages[i][:-1], {"role": "assistant", "content": a}] for i, a in zip(CHOSEN.tolist(), answers, strict=True)
    ]


# --- perplexity ---


@pytest.fixture
def learner(spec: CausalLM, cache: Cache) -> Learner:
    return Learner(spec, None, cache, seed=0)


def log_perplexity(learner: Learner, messages: list[dict[str, str]], *, response_only: bool, max_length: int) -> float:
    """From the logits of the whole conversation, with nothing beside it; NaN without a token to predict."""
    import torch

    template = learner.tokenizer.apply_chat_template
    ids = template(messages, return_dict=True)["input_ids"][:max_length]
    start = 1
    if response_only:  # of the last turn, the only one in the conversations that this is asked of
        start = len(template(messages[:-1], return_dict=True, add_generation_prompt=True)["input_ids"])
    with torch.no_grad():
        logits = learner.model(torch.tensor([ids])).logits[0].double()
    surprise = [-float(logits[at - 1].log_softmax(0)[ids[at]]) for at in range(start, len(ids))]
    return math.fsum(surprise) / len(surprise) if surprise else math.nan


@pytest.mark.parametrize("max_length", [2048, 30])
@pytest.mark.parametrize("tokens", ["text", "response"])
def test_perplexity_is_eq_7(
    bench: Bench, learner: Learner, monkeypatch: pytest.MonkeyPatch, tokens: str, max_length: int
) -> None:
    monkeypatch.setattr(base, "SHARD", 3)
    single = [conversation[:1] for conversation in MIXED]
    study = bench.study(pool=pool_of(*single))
    feedback = Perplexity(tokens=tokens, max_length=max_length)
    feedback.check()
    ours = feedback.score(study, learner, [*ROUNDS, np.array([2])], [*ANSWERS, "no"])
    expected = []
    for i, answer in zip([*CHOSEN.tolist(), 2], [*ANSWERS, "no"], strict=True):
        gold = study.pool.messages[i]
        own = [*gold[:-1], {"role": "assistant", "content": answer}]
        ppl_gold, ppl_own = (
            math.exp(log_perplexity(learner, m, response_only=tokens == "response", max_length=max_length))
            for m in (gold, own)
        )
        expected.append(-math.log(ppl_own / ppl_gold))
    assert np.isnan(expected[5]) == (tokens == "response" and max_length == 30)  # "word " * 40 leaves no response
    np.testing.assert_allclose(ours, np.nan_to_num(expected), rtol=1e-4, atol=1e-6)
    assert ours[0] == pytest.approx(0, abs=1e-6)  # the reference is "y" too
    assert (np.abs(ours[1:5]) > 1e-3).all()
    assert (ours[5] == 0) == (max_length == 30)  # nothing is left that could differ


def test_all_responses_of_a_conversation_count_and_only_the_last_differs(bench: Bench, learner: Learner) -> None:
    study = bench.study(pool=pool_of(*MIXED))
    ours = Perplexity(tokens="response").score(study, learner, ROUNDS, ANSWERS)
    gold = learner.nll([study.pool.messages[i] for i in CHOSEN])
    np.testing.assert_allclose(ours, gold - learner.nll(answered(ANSWERS)), rtol=1e-5, atol=1e-7)


def test_an_answer_like_the_reference_says_nothing(bench: Bench, learner: Learner) -> None:
    study = bench.study(pool=pool_of(*MIXED))
    same = study.pool.take(CHOSEN).responses
    np.testing.assert_allclose(Perplexity().score(study, learner, ROUNDS, same), 0, atol=1e-6)


@dataclass
class Losses:
    """A learner that finds each text as hard as a table says, and is known by a name."""

    by_text: Callable[[str], float]
    name: str = "one"
    calls: int = 0

    @property
    def state(self) -> dict[str, str]:
        return {"name": self.name}

    def snapshot(self) -> Losses:
        return self

    def nll(self, conversations: list[Any], *, max_length: int, whole: bool) -> np.ndarray:
        self.calls += 1
        return np.array([self.by_text(messages[-1]["content"]) for messages in conversations])


def test_perplexity_is_measured_once_for_a_model_and_its_answers(bench: Bench) -> None:
    study, losses = bench.study(pool=pool_of(*MIXED)), Losses(lambda text: len(text) / 2)
    gold = np.array([len(text) for text in study.pool.take(CHOSEN).responses])

    def score(losses: Losses, answers: list[str] = ANSWERS, **options: Any) -> int:
        before = losses.calls
        ours = Perplexity(**options).score(study, losses, ROUNDS, answers)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours, (gold - [len(a) for a in answers]) / 2)
        return losses.calls - before

    assert score(losses) == 1
    assert score(losses) == 0
    assert score(losses, [*ANSWERS[:-1], "else"]) == 1
    assert score(losses, tokens="response") == score(losses, max_length=99) == 1
    assert score(replace(losses, name="two")) == 1


def test_a_text_without_a_token_says_nothing_but_an_infinite_loss_is_no_feedback(bench: Bench) -> None:
    study = bench.study(pool=pool_of(*MIXED))

    def score(bad: float, text: str) -> list[float]:
        losses: Any = Losses(lambda found: bad if found == text else 1.0, name=f"{bad} {text}")
        return Perplexity().score(study, losses, ROUNDS, ANSWERS).tolist()

    assert score(np.nan, "y") == score(np.nan, "") == score(np.nan, "Four .") == [0] * 5
    assert score(np.inf, "") == [0, 0, np.inf, 0, -np.inf]


# --- a scorer ---


@dataclass
class Counting(Scorer):
    """Scores the length of a response, and keeps count of what it was shown."""

    unit: float = 1.0
    shown: list[str] = field(default_factory=list, metadata={"identity": False})

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> np.ndarray:
        self.shown += pool.responses
        return np.array([len(r) * self.unit for r in pool.responses], dtype=np.float32)


def test_a_scorer_judges_reference_and_answer_and_references_once(bench: Bench) -> None:
    study, scorer = bench.study(pool=pool_of(*MIXED)), Counting()
    references = study.pool.responses
    first = Scored(scorer).score(study, None, ROUNDS[:1], ANSWERS[:2])  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, [0, len("Four .") - len("Five .")])
    assert scorer.shown == [references[4], references[0], *ANSWERS[:2]]
    scorer.shown.clear()
    again = ["new", "answers", *ANSWERS[2:]]
    second = Scored(scorer).score(study, None, ROUNDS, again)  # type: ignore[arg-type]
    np.testing.assert_array_equal(second, [len(references[i]) - len(a) for i, a in zip(CHOSEN, again, strict=True)])
    assert scorer.shown == [*(references[i] for i in ROUNDS[1]), *again]
    scorer.shown.clear()
    np.testing.assert_array_equal(Scored(scorer).score(study, None, ROUNDS, again), second)  # type: ignore[arg-type]
    assert not scorer.shown
    assert second.dtype == np.float64


def test_over_the_rounds_every_reference_is_scored_once(bench: Bench) -> None:
    scorer = Counting()
    chosen = play(Iterative(Scored(scorer)), problem(bench), Scripted())
    references = [f"number {i}" for s in chosen[:2] for i in s.indices]
    assert sorted(text for text in scorer.shown if text.startswith("number")) == sorted(references)
    assert len(scorer.shown) == len(references) + 8 + 16  # and the answers of either round
    scorer.shown.clear()
    play(Iterative(Scored(scorer)), problem(bench), Scripted())
    assert not scorer.shown


def test_a_reward_model(bench: Bench, spec: CausalLM, tmp_path: Path) -> None:
    folder = reward_model(tmp_path / "reward", spec)
    scorer = Reward(hub="", path=str(folder), dtype="float32", device="cpu")
    feedback = Scored(scorer)
    feedback.check()
    pool = pool_of(*MIXED)
    ours = feedback.score(bench.study(pool=pool), None, ROUNDS, ANSWERS)  # type: ignore[arg-type]
    expected = []
    for number, (i, own) in enumerate(zip(CHOSEN.tolist(), answered(ANSWERS), strict=True)):
        one, other = tmp_path / f"{number}-reference", tmp_path / f"{number}-answer"
        one.mkdir()
        other.mkdir()
        alone = Pool.build("one", [Example("0", own, "s", {})])
        expected.append(float(scorer.score(pool.take([i]), one)[0]) - float(scorer.score(alone, other)[0]))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert len(set(ours.tolist())) == 5


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


@dataclass
class Thousands(Scripted):
    """Answers question i with example-1000·r+2i, after r trainings."""

    def generate(self, prompts: Any, **options: Any) -> list[str]:
        numbers = [int(prompt[-1]["content"].split()[-1]) for prompt in prompts]
        self.calls.append(list(prompts))
        return [f"It is example-{1000 * len(self.trained) + 2 * i}." for i in numbers]


def test_a_judge_is_asked_once_about_each_reference_and_answer(bench: Bench, key: None) -> None:
    pool = pool_of(*([(f"What is number {i}", f"It is example-{i}.")] for i in range(60)))
    heard: dict[int, Any] = {}

    def note(table: str, round: int, columns: Any) -> None:
        if table == "answers":
            heard[round] = columns

    with serving(good) as server:
        chosen = play(Iterative(Scored(judge(server))), problem(bench, pool=pool, budget=12, note=note), Thousands())
        one, two = chosen[0].indices.tolist(), chosen[1].indices.tolist()
        own = [1000 + 2 * i for i in one] + [2000 + 2 * i for i in one + two]
        assert server.asked == dict.fromkeys(one + two + own, 1)
        for round, indices in ((1, one), (2, one + two)):
            assert heard[round]["index"].tolist() == indices
            expected = [grade(i) - grade(1000 * round + 2 * i) for i in indices]
            np.testing.assert_array_equal(heard[round]["feedback"], expected)
        play(Iterative(Scored(judge(server))), problem(bench, pool=pool, budget=12), Thousands())
        assert server.asked.total() == len(one + two + own)


def test_a_judge_without_a_key_is_named_as_the_feedback_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="^selector.feedback.scorer: .*OPENAI_API_KEY"):
        Scored(Judge()).check()


def test_a_judge_that_was_cut_off_is_asked_only_what_is_left(bench: Bench, key: None) -> None:
    pool, down = pool_of(*([(f"What is number {i}", f"It is example-{i}.")] for i in range(60))), [True]

    def plan(i: int, attempt: int) -> Reply:
        return 503 if i >= 1000 and down[0] else good(i, attempt)

    with serving(plan) as server:
        impatient = judge(server, max_retries=0, concurrency=1)
        with pytest.raises(ConfigError, match="still fails"):
            play(Iterative(Scored(impatient), rounds=2), problem(bench, pool=pool, budget=10), Thousands())
        down[0] = False
        play(Iterative(Scored(judge(server)), rounds=2), problem(bench, pool=pool, budget=10), Thousands())
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 10


def test_a_scorers_own_options_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Scored(Judge()).check()


# --- a verifier ---


def test_a_verifier_by_hand(bench: Bench) -> None:
    #          reference right: yes     yes       no        no
    references, truth = ["Paris.", "rome", "Berlin", "42"], ["Paris", "Rome", "Bonn", "43"]
    pool = Pool.build(
        "p",
        [
            Example(str(i), pool_of([(f"q{i}", r)]).messages[0], "s", {}, truth={"answer": t})
            for i, (r, t) in enumerate(zip(references, truth, strict=True))
        ],
    )
    study = bench.study(pool=pool.blind(), verify=pool.verifier)
    feedback = Verifier()
    feedback.check()
    feedback.check_study(study)
    rounds = [np.array([2, 0]), np.array([3, 1])]
    for answers, expected in (
        (["Bonn", "Paris", "43 .", "Rome"], [-1, 0, -1, 0]),
        (["Berlin", "London", "44", ""], [0, 1, 0, 1]),
    ):
        ours = feedback.score(study, None, rounds, answers)  # type: ignore[arg-type]
        assert ours.tolist() == expected
        assert ours.dtype == np.float64


def test_a_verifier_needs_a_pool_with_answers(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="the pool p carries no answers; choose another feedback"):
        Verifier().check_study(bench.study())


# --- their files ---

FILES = sorted(p.stem for p in (ROOT / "conf" / "selector" / "feedback").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_builds_a_feedback_and_shows_its_options(name: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=["selector=iterative", f"selector/feedback={name}"]).selector.feedback
    feedback = instantiate(config, _convert_="all")
    assert isinstance(feedback, Feedback)
    module, _, cls = config._target_.rpartition(".")
    assert {f.name for f in fields(getattr(import_module(module), cls))} == set(config) - {"_target_"}


def test_the_four_of_the_paper_and_the_pool_are_there() -> None:
    assert {"perplexity", "reward", "judge", "verifier"} <= set(FILES)


@pytest.mark.parametrize("options", [{"tokens": "prompt"}, {"tokens": None}, {"max_length": 1}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    checked(Perplexity(max_length=2), "selector.feedback")
    with pytest.raises(ConfigError, match=f"selector.feedback.{next(iter(options))}=") as caught:
        checked(Perplexity(**options), "selector.feedback")
    assert "\n" not in str(caught.value)
