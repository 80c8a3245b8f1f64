"""Each row judged by itself, and all that is not used said in a line."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsel.data.local import Local
from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.scorer.column import Column

PAIR = {"question": "A bird?", "answer": "Heron."}
CHAT = {"messages": [{"role": "user", "content": "A fish?"}, {"role": "assistant", "content": "Trout."}]}


class Loaded:
    """A pool of rows and what the log says of it."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture):
        self.file, self.caplog = folder / "a.jsonl", caplog

    def __call__(self, *rows: Mapping[str, Any], **options: Any) -> tuple[Pool, list[str]]:
        if rows:
            self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        local = Local(path=self.file, **options)
        local.check()
        self.caplog.clear()
        with self.caplog.at_level(logging.INFO, "dsel"):
            pool = local.load()
        return pool, [message.replace(str(self.file), "FILE") for message in self.caplog.messages]


@pytest.fixture
def loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Loaded:
    return Loaded(tmp_path, caplog)


def table(path: Path, *rows: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_the_first_row_does_not_decide_how_the_others_are_read(loaded: Loaded) -> None:
    pool, lines = loaded(PAIR, PAIR | {"messages": 3.5}, CHAT, {"prompt": "A tree?", "completion": "Ash."})
    assert pool.responses == ["Heron.", "Heron.", "Trout.", "Ash."]
    assert pool.score_columns == []
    assert lines == [
        "columns not read: `messages` (1 row)",
        "formats: `question/answer` (2 rows), `messages` (1 row), `prompt/completion` (1 row); data.format=… names one",
    ]


def test_a_row_of_no_format_is_skipped_wherever_it_stands(loaded: Loaded) -> None:
    pool, lines = loaded({"version": 1}, PAIR, {"question": "A fish?"}, {"version": 2})
    assert pool.ids == ["a/2"]
    assert pool.skipped == {"no known format has its columns": 1, "no column `question`": 1, "no column `answer`": 1}
    assert lines[0] == "skipped 1 rows (no known format has its columns): FILE row 1"


def test_a_file_without_a_row_of_any_format_is_an_error(loaded: Loaded) -> None:
    for rows in ([{"text": "a"}], [{"text": "a"}] * 1000):
        with pytest.raises(ConfigError, match="no instruction format has the columns text; name yours with"):
            loaded(*rows)


def test_columns_that_are_not_read_are_named_once_with_their_counts(loaded: Loaded) -> None:
    rows = [PAIR | {"hint": "It is grey.", "choices": ["Heron", "Trout"], "ok": False}] * 3 + [PAIR | {"hint": ""}]
    assert loaded(*rows)[1] == [
        "columns not read: `hint` (3 rows), `choices` (3 rows), `ok` (3 rows); "
        "data.columns={input: hint} would read `hint` into the prompt"
    ]


def test_the_advice_about_a_column_works(loaded: Loaded) -> None:
    rows = [PAIR | {"hint": "It is grey.", "note": "And tall."}] * 2
    pool, lines = loaded(*rows, columns={"input": "hint"})
    assert pool.prompts[0][0]["content"] == "A bird?\nInput: It is grey."
    assert "data.columns={input: hint, context: note} would" in lines[0]
    pool, lines = loaded(columns={"input": "hint", "context": "note"})
    assert pool.prompts[0][0]["content"] == "A bird?\nInput: It is grey.\nAnd tall."
    assert lines == []


@pytest.mark.parametrize(
    "more",
    [
        {"id": "a b", "source": "the web", "url": "https://example.org/a", "created_at": "yesterday evening"},
        {"category": "open_qa", "language": "Norwegian", "model": "gpt-4", "score": 3, "user_id": "some one"},
        {"seen": "2024-01-02", "digest": "0123456789abcdef0123", "link": "https://example.org/b", "page": "12"},
        {"metadata": {"note": "a note"}, "tokens": [1, 2], "info": {"id": "some one"}, "empty": [], "gap": None},
        {"text": "Below is a question.\n### A bird?\n### Heron.", "prompt": "A bird?", "label": True},
        {"chosen": [{"role": "user", "content": "A bird?"}, {"role": "assistant", "content": "Heron."}]},
    ],
)
def test_what_is_no_text_or_is_read_already_needs_no_word(loaded: Loaded, more: dict[str, Any]) -> None:
    assert loaded(PAIR | more, PAIR, format="question/answer")[1] in ([], ["numbers in text read as scores: `page`"])


@pytest.mark.parametrize(
    "more",
    [
        {"about": "The bird? heron."},
        {"task": "Translate what follows into German."},
        {"source_text": "A bird"},
        {"knowledge": {"facts": ["A heron is grey."]}},
        {"rejected": "Trout."},
        {"history": "They spoke of birds."},
        {"tools": "hammer"},
    ],
)
def test_what_is_text_and_not_read_is_named(loaded: Loaded, more: dict[str, Any]) -> None:
    lines = loaded(PAIR | more)[1]
    assert len(lines) == 1 and lines[0].startswith(f"columns not read: `{next(iter(more))}` (1 row)")


def test_a_chain_of_thought_is_advised_as_reasoning_and_that_works(loaded: Loaded) -> None:
    _, lines = loaded(PAIR | {"Complex_CoT": "It is grey and tall."})
    assert lines[0].endswith("; data.columns={reasoning: Complex_CoT} would read `Complex_CoT` as reasoning")
    pool, lines = loaded(columns={"reasoning": "Complex_CoT"})
    assert pool.messages[0][-1]["reasoning_content"] == "It is grey and tall." and lines == []


def test_a_solution_is_trained_rather_than_its_final_answer(loaded: Loaded) -> None:
    pool, lines = loaded({"problem": "1 + 1?", "solution": "One more than one is 2.", "answer": "2"})
    assert (pool.responses, pool.score_columns, lines) == (["One more than one is 2."], [], [])


def test_a_question_called_dialogue_can_be_named(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"1 × `dialogue` is text.*data\.columns={prompt: dialogue, completion: …}"):
        loaded({"dialogue": "A: Hi. B: Hi.", "summary": "A greeting."})
    pool, _ = loaded(columns={"prompt": "dialogue", "completion": "summary"})
    assert pool.responses == ["A greeting."]


def test_a_rejected_answer_is_never_advised_for_the_prompt(loaded: Loaded) -> None:
    pool, lines = loaded({"prompt": "A bird?", "chosen": "Heron.", "rejected": "Trout."})
    assert pool.responses == ["Heron."]
    assert lines == ["columns not read: `rejected` (1 row)"]


def test_a_column_that_a_mapping_replaces_is_named(loaded: Loaded) -> None:
    _, lines = loaded(PAIR | {"my_question": "A fish?"}, columns={"question": "my_question"})
    advice = "data.columns={question: my_question, input: question} would read `question` into the prompt"
    assert lines == [f"columns not read: `question` (1 row); {advice}"]
    pool, lines = loaded(columns={"question": "my_question", "input": "question"})
    assert (pool.prompts[0][0]["content"], lines) == ("A fish?\nInput: A bird?", [])


def test_keys_of_turns_that_are_not_read_are_named(loaded: Loaded) -> None:
    turns = [CHAT["messages"][0], CHAT["messages"][1] | {"refusal": "No more."}]
    assert loaded({"messages": turns}, {"messages": turns})[1] == ["keys of turns not read: `refusal` (2 turns)"]


def test_an_unknown_role_is_named_with_what_to_do_and_that_works(loaded: Loaded) -> None:
    row = {"messages": [{"role": "moderator", "content": "Welcome."}, *CHAT["messages"]]}
    advice = "data.roles={moderator: …} makes it one of system, user, assistant, tool"
    assert loaded(row, CHAT)[1] == [f"skipped 1 rows (unknown role 'moderator'; {advice}): FILE row 1"]
    for options in ({"on_bad_row": "error"}, {"limit": None, "path": None}):
        with pytest.raises(ConfigError) as caught:
            loaded(row, **{k: v for k, v in options.items() if v})
        assert advice in str(caught.value)
    pool, lines = loaded(row, roles={"Moderator": "system"})
    assert pool.prompts[0][0] == {"role": "system", "content": "Welcome."} and lines == []


def test_a_format_can_be_named(loaded: Loaded) -> None:
    row = CHAT | PAIR | {"instruction": "A tree?", "output": "Ash."}
    assert loaded(row)[0].responses == ["Trout."]
    for name, answer in {"question/answer": "Heron.", "alpaca": "Ash.", "openai": "Trout."}.items():
        assert loaded(row, format=name)[0].responses == [answer]
    with pytest.raises(
        ConfigError, match=r"data\.format=prompt/chosen needs prompt and chosen, but .*prompt: …, chosen"
    ):
        loaded(row, format="prompt/chosen")
    assert loaded(row, format="prompt/chosen", columns={"prompt": "question", "chosen": "answer"})[0].texts == [
        "A bird?\nHeron."
    ]


def test_columns_that_are_named_come_before_those_that_are_recognised(loaded: Loaded) -> None:
    row = CHAT | {"ask": "A bird?", "reply": "Heron."}
    assert loaded(row, columns={"prompt": "ask", "completion": "reply"})[0].texts == ["A bird?\nHeron."]
    row = {"history_of_chat": CHAT["messages"], "prompt": "A bird?", "completion": "Heron."}
    assert loaded(row, columns={"messages": "history_of_chat"})[0].texts == ["A fish?\nTrout."]


def test_the_advice_about_an_unknown_format_works(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"data\.columns={messages: talk}"):
        loaded({"talk": CHAT["messages"], "n": 1})
    assert loaded(columns={"messages": "talk"})[0].texts == ["A fish?\nTrout."]


def test_a_column_that_only_some_rows_have_can_be_named(loaded: Loaded) -> None:
    pool, _ = loaded(PAIR, PAIR | {"persona": "A poet."}, columns={"system": "persona"})
    assert [len(prompt) for prompt in pool.prompts] == [1, 2]
    with pytest.raises(ConfigError, match=r"data\.columns names person, but the columns are answer, question"):
        loaded(columns={"system": "person"})


def test_known_columns_are_read_in_capitals(loaded: Loaded) -> None:
    pool, lines = loaded({"Question": "A bird?", " Answer ": "Heron.", "ID": 7})
    assert (pool.texts, pool.ids, lines) == (["A bird?\nHeron."], ["7"], [])
    assert json.loads(pool.originals["json"][0]) == {"Question": "A bird?", " Answer ": "Heron.", "ID": 7}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["prompt"]}, "data.columns=['prompt']: give {our name"),
        ({"columns": {"prompt": ["a", "b"]}}, "data.columns: prompt is to be ['a', 'b'], which is no column's name"),
        ({"columns": {"promt": "a"}}, "data.columns: promt is none of"),
        ({"format": "alpacca"}, "data.format=alpacca: give one of openai, sharegpt, alpaca,"),
        ({"roles": ["tool"]}, "data.roles=['tool']: give {name in the file: role}"),
        ({"roles": {"observation": "tol"}}, "data.roles: observation is to be 'tol', which is none of system, user,"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        Local(path=tmp_path / "a.jsonl", **options).check()
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_names_with_broken_bytes_are_printed_and_nothing_breaks(loaded: Loaded) -> None:
    pool, lines = loaded(PAIR, PAIR | {"\ud800": 1.5}, PAIR | {"a\ud800": "b c"})
    assert len(pool) == 3 and pool.score_columns == []
    assert lines[0].startswith(r"columns not read: `\ud800` (1 row), `a\ud800` (1 row)")
    lines[0].encode()
    with pytest.raises(ConfigError, match=r"no instruction format has the columns \\ud800") as caught:
        loaded({"\ud800": "a"})
    str(caught.value).encode()


def test_lists_too_deep_to_be_kept_are_reported(loaded: Loaded) -> None:
    for depth in (200, 900):
        deep: Any = float("nan")
        for _ in range(depth):
            deep = [deep]
        pool, lines = loaded(PAIR, PAIR | {"x": deep})
        assert len(pool) == 1
        assert lines == ["skipped 1 rows (lists within lists, too deep to be kept): FILE row 2"]


# --- numbers in text ------------------------------------------------------------------------------------------------


def scores(pool: Pool, name: str, tmp_path: Path) -> list[float]:
    return [round(float(s), 4) for s in Column(name=name).score(pool, tmp_path)]


def test_numbers_in_the_text_of_a_whole_column_are_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("question", "answer", "score", "Unnamed: 0", "user_id"), ("a", "b", "4.5", "0", "17")]
    file = table(tmp_path / "a.csv", *rows, ("c", "d", " -2 ", "1", "18"), ("e", "f", "1e-1", "2", "19"))
    with caplog.at_level(logging.INFO, "dsel"):
        pool = Local(path=file).load()
    assert pool.score_columns == ["score"]
    assert scores(pool, "score", tmp_path) == [4.5, -2.0, 0.1]
    assert caplog.messages == ["numbers in text read as scores: `score`"]


def test_numbers_and_numbers_in_text_are_one_score(loaded: Loaded, tmp_path: Path) -> None:
    pool, _ = loaded(PAIR | {"score": 4.5}, PAIR | {"score": "3"}, PAIR | {"score": 2})
    assert scores(pool, "score", tmp_path) == [4.5, 3.0, 2.0]


def test_a_column_half_numbers_half_text_is_said(loaded: Loaded, tmp_path: Path) -> None:
    rows = [PAIR | {"grade": grade} for grade in ("4.5", "3", "2", "poor", "", "n/a")]
    pool, lines = loaded(*rows)
    assert pool.score_columns == []
    assert lines == ["`grade`: numbers in 3 rows, other text in 1: that is no score"]
    pool, lines = loaded(*rows[:3], *rows[4:])
    assert pool.score_columns == ["grade"]
    with pytest.raises(ConfigError, match="2 examples have no score"):
        scores(pool, "grade", tmp_path)


def test_words_among_numbers_are_said(loaded: Loaded) -> None:
    values: list[Any] = [0.5, 0.25, "poor"]
    pool, lines = loaded(*({**PAIR, "score": score} for score in values))
    assert pool.score_columns == ["score"]  # scorer=column then says which example has none
    assert lines == ["`score`: numbers in 2 rows, other text in 1: that is no score"]


def test_a_text_with_a_number_here_and_there_is_a_text(loaded: Loaded) -> None:
    pool, lines = loaded(*(PAIR | {"hint": hint} for hint in ("It is grey.", "42", "It is tall.", "No more.")))
    assert pool.score_columns == []
    assert lines[0].startswith("columns not read: `hint` (3 rows)")


def test_answers_that_are_numbers_in_a_table_are_no_scores(tmp_path: Path) -> None:
    pool = Local(path=table(tmp_path / "a.csv", ("question", "answer"), ("6 times 7?", "42"))).load()
    assert (pool.responses, pool.score_columns) == (["42"], [])
