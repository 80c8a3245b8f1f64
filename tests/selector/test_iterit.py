"""IterIT's choice and order: the published code's, and a plain reading of the definition on anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.model.likelihood import Encoded
from dsel.selector import iterit
from dsel.selector.base import Choose
from dsel.selector.iterit import IterIT, greedy, order
from tests.conftest import GOLDEN, checked, shared
from tests.scorer.pools import pool_of
from tests.test_study import Bench


@pytest.mark.parametrize("wanted", ["ifd", "both"])
def test_orders_of_the_published_code(wanted: str) -> None:
    cases = json.loads((GOLDEN / "iterit_selection.json").read_text())
    assert sorted(case["score_type"] for case in cases) == ["BOTH", "BOTH", "IFD"]
    outputs = [""] * 999  # which IFD alone does not read
    if wanted == "both":
        outputs = [row["output"] for row in json.loads(shared("data/alpaca_gpt4_999.json").read_text())]
    for case in cases:
        responses, score_type = [output + case["suffix"] for output in outputs], case["score_type"].lower()
        if score_type != wanted:
            continue
        arguments = {"decay": case["decay"], "score_type": score_type}
        found = order(responses, case["ifd"], case["k"], tail="code", **arguments)
        assert found.tolist() == case["full_order"]
        # The paper never has an IFD of one or more ahead of one below.
        by_paper = sorted(case["full_order"], key=lambda i: case["ifd"][i] >= 1)
        assert order(responses, case["ifd"], case["k"], **arguments).tolist() == by_paper
        assert found[: case["k"]].tolist() == case["selected"]
        if score_type == "both":
            assert greedy(responses, case["ifd"], case["k"], decay=case["decay"]).tolist() == case["selected"]


def plain(responses: list[str], ifd: np.ndarray, budget: int, decay: float) -> list[int]:
    """The definition, on scikit-learn's matrix, with the columns of each choice multiplied; IFD >= 1 at the end."""
    candidates, chosen = np.flatnonzero(ifd < 1), []
    terms = TfidfVectorizer(ngram_range=(1, 3)).fit_transform([responses[i] for i in candidates]).toarray()
    for _ in range(min(budget, len(candidates))):
        values = ifd[candidates] * terms.sum(axis=1)
        values[chosen] = -1
        # No two IFDs are equal, so only rows of zeros tie.
        chosen.append(int(np.lexsort((-ifd[candidates], -values))[0]))
        terms[:, terms[chosen[-1]] > 0] *= decay
    return [*candidates[chosen].tolist(), *np.flatnonzero(ifd >= 1)][:budget]


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_greedy_is_the_definition(data: st.DataObject) -> None:
    words = st.lists(st.sampled_from("red green blue gray ?".split()), max_size=6).map(" ".join)
    responses = ["red green", *data.draw(st.lists(words, max_size=12))]
    ifd = np.random.default_rng(data.draw(st.integers(0, 10**6))).uniform(0.2, 1.2, len(responses))
    ifd[0] = min(ifd[0], 0.9)  # scikit-learn needs a word
    decay, budget = data.draw(st.sampled_from([0.0, 0.1, 0.7, 1.0])), data.draw(st.integers(1, len(responses)))
    assert greedy(responses, ifd, budget, decay=decay).tolist() == plain(responses, ifd, budget, decay)


@pytest.mark.parametrize("tail", ["paper", "code"])
@pytest.mark.parametrize("score_type", ["both", "ifd"])
def test_the_order_holds_all_once(score_type: str, tail: str) -> None:
    responses, ifd = ["red", "blue", "red", "gray", "?", "gray blue"], [0.5, 1.5, 0.4, 1.0, 0.9, 0.3]
    for budget in range(1, 7):
        found = order(responses, ifd, budget, score_type=score_type, tail=tail).tolist()
        assert sorted(found) == list(range(6))
        taken = min(budget, 4)
        rest = sorted(set(range(6)) - {1, 3, *found[:taken]}, key=lambda i: -ifd[i])
        assert found[taken:] == ([1, 3, *rest] if tail == "code" else [*rest, 1, 3])


def test_ifd_alone() -> None:
    responses, ifd = ["red"] * 5, [0.5, 1.1, 0.9, 0.5, 0.7]
    assert order(responses, ifd, 2, score_type="ifd").tolist() == [2, 4, 0, 3, 1]
    assert order(responses, ifd, 2, score_type="ifd", tail="code").tolist() == [2, 4, 1, 0, 3]


def test_nothing_below_one() -> None:
    assert greedy(["red", "blue"], [1.0, 2.0], 2).tolist() == [0, 1]


@pytest.mark.parametrize("ifd", [[0.1, 0.2, 0.3], [0.3, 0.3, 0.3]])
def test_no_words_at_all_leaves_ifd(ifd: list[float]) -> None:
    expected = [2, 1, 0] if ifd[0] < ifd[2] else [0, 1, 2]
    assert greedy(["?", "", "a"], ifd, 3).tolist() == expected


class Reader:
    """Stands in for the learner: the loss of a text is a number made of its tokens; what it read is kept."""

    model = None  # and so without a limit of positions

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.texts, self.state = tokenizer, [], {"reader": 1}

    def snapshot(self) -> Reader:
        return self

    def losses(self, encoded: Sequence[Encoded]) -> np.ndarray:
        self.texts += [self.tokenizer.decode(ids) for ids, _ in encoded]
        return np.array([1 + len(ids) % 7 / 10 + (0 if i % 2 else -0.5) for i, (ids, _) in enumerate(encoded)])


CHATS = pool_of(
    [("Name a wolf", "grey wolf"), ("Another ?", "red wolf")],
    [("Name a sea", "the baltic sea"), ("And ?", "a black sea")],
    [("Say it", "word")],
    system="Be brief.",
)


@pytest.mark.parametrize("turn", ["first", "last"])
@pytest.mark.parametrize("end_token", [True, False])
def test_what_is_read_of_a_conversation(turn: str, end_token: bool, spec: CausalLM, tmp_path: Path) -> None:
    """The response after all before it but the pool's system message; n-grams of it and of the end token's text."""
    tokenizer = spec.load_tokenizer()
    reader, selector, seen = Reader(tokenizer), IterIT(turn=turn, end_token=end_token), []
    selector.check()
    steps = selector.steps(Bench(tmp_path).study(pool=CHATS, budget=2), reader)  # type: ignore[arg-type]

    def noted(responses: Sequence[str], *arguments: Any, **options: Any) -> np.ndarray:
        seen.extend(responses)
        return order(responses, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iterit, "order", noted)
        chosen = next(steps)
    responses = ["grey wolf", "the baltic sea", "word"] if turn == "first" else ["red wolf", "a black sea", "word"]
    assert seen == [response + ("<|end|>" if end_token else "") for response in responses]
    system = {"role": "system", "content": "You are a helpful assistant."}
    conversations = [[m for m in messages if m["role"] != "system"] for messages in CHATS.messages]
    if turn == "first":
        conversations = [messages[:2] for messages in conversations]
    wanted = {tokenizer.apply_chat_template([system, *messages], tokenize=False) for messages in conversations}
    wanted |= {tokenizer.apply_chat_template(messages[-1:], tokenize=False) for messages in conversations}
    assert set(reader.texts) == {tokenizer.decode(tokenizer(w, add_special_tokens=False)["input_ids"]) for w in wanted}
    assert isinstance(chosen, Choose) and len(chosen.selection.indices) == 2


def test_its_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"selector\.turn=middle: wants one of first, last"):
        checked(IterIT(turn="middle"), "selector")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ifd": [0.5]}, "ifd must hold one score for each of 2"),
        ({"ifd": [0.5, np.nan]}, "values of ifd are NaN"),
        ({"ifd": [0.5, -0.5]}, "ifd must not be negative"),
        ({"budget": 0}, "budget must be between 1 and the 2"),
        ({"budget": 3}, "budget must be between 1 and the 2"),
        ({"decay": 1.5}, "decay must be between 0 and 1"),
        ({"score_type": "tfidf"}, "score_type must be one of both, ifd, not tfidf"),
        ({"tail": "head"}, "tail must be one of paper, code, not head"),
    ],
)
def test_bad_input_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order(**{"responses": ["red", "blue"], "ifd": [0.5, 0.6], "budget": 1, **arguments})
