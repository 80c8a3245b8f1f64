"""Evaluated texts in a pool and in what is chosen of it: counted, or taken out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dsel import decontaminate
from dsel.cache import Cache
from dsel.data.local import Local
from dsel.data.procedural import Procedural as ProceduralData
from dsel.errors import ConfigError
from dsel.evaluator.gsm8k_local import Gsm8kLocal
from dsel.evaluator.heldout_loss import HeldoutLoss
from dsel.evaluator.none import NoEvaluator
from dsel.evaluator.procedural import Procedural
from dsel.model.causal_lm import CausalLM
from dsel.record.writer import Record
from dsel.selector.base import Selector
from dsel.selector.full import Full
from dsel.selector.random import Random
from dsel.stage import unrecorded
from dsel.sweep import run_key
from dsel.targets.local import LocalTargets
from dsel.trainer.none import NoTrainer
from tests.selector.test_iterative import experiment

QUESTIONS = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many in all?",
    "Weng earns 12 dollars an hour for babysitting. Yesterday, she just did 50 minutes of it. How much did she earn?",
    "Betty is saving money for a new wallet which costs 100 dollars and has only half of what she needs for that now.",
]
PLANTED = [QUESTIONS[0], f"Please solve: {QUESTIONS[1].upper()}", QUESTIONS[2].replace("100", "2,500")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Thirty plain examples with three evaluated questions among them: verbatim, in capitals, with another number."""
    prompts = [f"Tell me something about the number {i} and why people like it" for i in range(30)]
    for place, question in zip((4, 11, 27), PLANTED, strict=True):
        prompts.insert(place, question)
    return written(tmp_path / "pool.jsonl", prompts)


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": "#### 1"}) + "\n" for q in QUESTIONS))
    return path


def written(path: Path, prompts: list[str]) -> Path:
    rows = ({"prompt": prompt, "completion": f"answer {i}"} for i, prompt in enumerate(prompts))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(folder: Path, spec: CausalLM, cache: Cache, data: Local, selector: Selector, **parts: object) -> dict:
    """What the record says of a run that trains nothing."""
    folder.mkdir()
    made = experiment(spec, cache)
    made.data, made.selector, made.trainer, made.evaluator = data, selector, NoTrainer(), NoEvaluator()
    made.budget = 1.0
    for name, part in parts.items():
        setattr(made, name, part)
    evaluates, made.evaluator.evaluates = made.evaluator.evaluates, False
    made.run(Record(folder, {}, {}))
    made.evaluator.evaluates = evaluates
    return json.loads((folder / "record.json").read_text())


def test_planted_questions_are_found_counted_and_removed(spec, cache, tmp_path, file, test_file, caplog):
    caplog.set_level(logging.INFO)
    asks = Gsm8kLocal(tasks={"gsm8k_local": {"shots": 0, "metric": "x"}}, path=str(test_file))
    facts = run(tmp_path / "a", spec, cache, Local(path=file), Full(), evaluator=asks)
    found = facts["contamination"]
    assert (found["against"], found["words"], found["not_at_hand"]) == ({"evaluator": 3}, 13, [])
    assert (found["examples"], found["of"], found["share"]) == (3, 33, pytest.approx(3 / 33))
    assert found["kinds"] == {"exact": 1, "normalised": 2} and found["origins"] == {"evaluator": 3}
    worst = [(each["text"], each["kind"], each["share"]) for each in found["worst"]]
    assert worst == [(f"gsm8k_local/{i}", kind, 1.0) for i, kind in enumerate(("exact", "normalised", "normalised"))]
    assert found["pool"]["examples"] == 3 and found["pool"]["removed"] == 0
    assert "3 of 33 chosen examples have what is evaluated on" in caplog.text
    whole = facts["pool"]["fingerprint"]

    facts = run(tmp_path / "b", spec, cache, Local(path=file, decontaminate="remove"), Full(), evaluator=asks)
    found = facts["contamination"]
    assert (facts["pool"]["examples"], facts["budget"]) == (30, 30) and facts["pool"]["fingerprint"] != whole
    assert (found["examples"], found["of"]) == (0, 30)
    assert (found["pool"]["examples"], found["pool"]["removed"], found["pool"]["of"]) == (3, 3, 33)
    assert "taken out of the pool: 3 of 33" in caplog.text
    chosen = (tmp_path / "b" / "selected.jsonl").read_text()
    assert not any(question[:20] in chosen for question in PLANTED) and chosen.count("Tell me") == 30

    facts = run(tmp_path / "c", spec, cache, Local(path=file, decontaminate="off"), Full(), evaluator=asks)
    assert "contamination" not in facts and facts["pool"]["fingerprint"] == whole


def test_chosen_and_pool_are_counted_apart(spec, cache, tmp_path, file, test_file):
    data = Local(path=file, decontaminate_with=str(written(tmp_path / "more.jsonl", QUESTIONS)))
    facts = run(tmp_path / "a", spec, cache, data, Random(), budget=5)
    found = facts["contamination"]
    chosen = [json.loads(line) for line in (tmp_path / "a" / "selected.jsonl").read_text().splitlines()]
    hits = sum(any(question in json.dumps(row) for question in PLANTED) for row in chosen)
    assert (found["examples"], found["of"]) == (hits, 5) and found["pool"]["examples"] == 3
    assert found["against"] == {"file": 3}


def test_targets_are_looked_for_and_lines_of_text(spec, cache, tmp_path, file, caplog):
    lines = tmp_path / "asked.txt"
    lines.write_text("\n".join(QUESTIONS[:2]))
    targets = LocalTargets(path=str(written(tmp_path / "targets.jsonl", QUESTIONS[1:])))
    data = Local(path=file, decontaminate_with=str(lines))
    found = run(tmp_path / "a", spec, cache, data, Full(), targets=targets)["contamination"]
    assert found["against"] == {"file": 2, "targets": 2}
    assert found["origins"] == {"file": 2, "targets": 1}  # of two with the same text, the first counts
    run(tmp_path / "alone", spec, cache, Local(path=file), Full(), targets=targets)
    assert "chosen examples have what the targets have, most of all" in caplog.text  # nothing is evaluated on


def test_fewer_words_find_more(spec, cache, tmp_path, file):
    lines = tmp_path / "asked.txt"
    lines.write_text("I wonder about the number 5 and why people like it, and about all that can be said of it")
    few = written(tmp_path / "few.jsonl", ["about the number 7 and why people like it so", "no"])
    for words, count in ((13, 0), (8, 1)):
        data = Local(path=few, decontaminate_with=str(lines), decontaminate_words=words)
        assert run(tmp_path / str(words), spec, cache, data, Full())["contamination"]["examples"] == count


def test_nothing_to_look_for(spec, cache, tmp_path, file):
    assert "contamination" not in run(tmp_path / "a", spec, cache, Local(path=file), Full())
    with pytest.raises(ConfigError, match="there is nothing to look for.*decontaminate_with"):
        run(tmp_path / "b", spec, cache, Local(path=file, decontaminate="remove"), Full())
    with pytest.raises(ConfigError, match=r"data\.decontaminate_with"):
        Local(path=file, decontaminate_with="nowhere.jsonl").check()
    every = tmp_path / "asked.txt"
    every.write_text("\n".join(json.loads(line)["prompt"] for line in file.read_text().splitlines()))
    with pytest.raises(ConfigError, match="nothing of the pool is left"):
        data = Local(path=file, decontaminate="remove", decontaminate_with=str(every))
        run(tmp_path / "c", spec, cache, data, Full())


def test_what_evaluators_ask(cache, tmp_path, file):
    asked = Procedural(tasks={}, per_kind=2).texts(ProceduralData(size=3).load(), cache)
    assert len(asked.texts) > 20 and asked.missing == () and "procedural/0" in asked.texts
    heldout = Local(path=file).load().take([4, 5])
    assert list(HeldoutLoss().texts(heldout, cache).texts.values())[0] == QUESTIONS[0]
    assert len(HeldoutLoss(path=str(file), limit=7).texts(heldout, cache).texts) == 7


def test_what_a_large_pool_has_is_kept(cache, tmp_path, file, test_file, monkeypatch):
    monkeypatch.setattr(decontaminate, "LARGE", 10)
    asks = Gsm8kLocal(path=str(test_file))
    pool = Local(path=file).load()
    parts = (Local(path=file), None, asks, pool, pool.take([]), cache, unrecorded)
    first = decontaminate.looked(*parts)
    monkeypatch.setattr(decontaminate, "_look", None)
    again = decontaminate.looked(*parts)
    assert first is not None and again is not None
    assert first.facts(first.left) == again.facts(again.left) and again.found.hit.sum() == 3
    assert decontaminate.looked(parts[0], None, NoEvaluator(), *parts[3:]) is None


def test_only_removing_makes_another_run(file, test_file):
    from dsel.data.base import removes

    plain, other = Local(path=file), Local(path=file, decontaminate="off", decontaminate_with=str(test_file))
    assert run_key({"data": plain}, removes(plain)) == run_key({"data": other}, removes(other))
    gone = [Local(path=file, decontaminate="remove", decontaminate_words=words) for words in (8, 13)]
    keys = {run_key({"data": data}, removes(data)) for data in [plain, *gone]}
    assert len(keys) == 3


def test_a_file_of_texts_says_what_is_wrong_with_it(spec, cache, tmp_path, file, caplog):
    def looked(name: str, content: bytes) -> dict:
        (tmp_path / name).write_bytes(content)
        data = Local(path=file, decontaminate_with=str(tmp_path / name))
        return run(tmp_path / name.replace(".", "-"), spec, cache, data, Full())["contamination"]

    assert looked("latin.txt", f"{QUESTIONS[0]}\n\nUn café".encode("cp1252"))["against"] == {"file": 2}
    assert "latin.txt: read as cp1252" in caplog.text
    for name, content, says in (
        ("blank.txt", b" \n\n", r"data\.decontaminate_with=.*blank\.txt: there is no text in it"),
        ("empty.jsonl", b"", r"data\.decontaminate_with: no usable example in .*empty\.jsonl"),
        ("other.jsonl", b'{"foo": 1}', r"no instruction format has the columns foo; known are [^;]*$"),
    ):
        with pytest.raises(ConfigError, match=says):
            looked(name, content)


def test_what_was_taken_out_is_said_where_too_little_is_left(spec, cache, tmp_path, file, caplog):
    caplog.set_level(logging.INFO)
    data = Local(path=file, decontaminate="remove", decontaminate_with=str(written(tmp_path / "more.jsonl", QUESTIONS)))
    with pytest.raises(ConfigError, match="budget=31 is larger than the pool"):
        run(tmp_path / "a", spec, cache, data, Random(), budget=31)
    assert caplog.text.count("taken out of the pool: 3 of 33 examples, which have what is evaluated on") == 1
