"""The procedural pool: what it promises about size, noise, copies, the rater and the evaluation split."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from dsel.data.kinds import draw_item, reserved
from dsel.data.procedural import EDITS, KINDS, generate, heldout, raw_text
from dsel.pool import is_answer

SEEDS = (0, 1, 2, 7)


@pytest.fixture(scope="module")
def pool():
    return generate(6000, 0)


def _prompt(row):
    return row["messages"][0]["content"]


def _response(row):
    return row["messages"][1]["content"]


def _digest(rows):
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def test_same_arguments_same_rows_in_another_process():
    code = (
        "import hashlib, json; from dsel.data.procedural import generate; "
        "print(hashlib.sha256(json.dumps(generate(500, 3), sort_keys=True).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == _digest(generate(500, 3))


def test_seeds_differ():
    assert _digest(generate(100, 0)) != _digest(generate(100, 1))


@pytest.mark.parametrize("size", [0, 1, 2, 33, 1001])
def test_exact_size(size):
    assert len(generate(size, 5)) == size


@pytest.mark.parametrize("arguments", [{"noise": 1.5}, {"near_duplicates": 1.0}, {"zipf": -1.0}, {"size": -1}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="generate needs"):
        generate(**{"size": 10, "seed": 0, **arguments})


def test_rows_have_the_agreed_columns(pool):
    for row in pool:
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
        assert set(row) == {"messages", "source", "kind", "is_noise", "answer", "rating"}
        assert _prompt(row).strip() and _response(row).strip()
        assert 1 <= row["rating"] <= 6


def test_kinds_are_many_and_well_formed():
    assert len(KINDS) >= 24
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert len(set(kind.prompts)) >= 6


def test_kind_sizes_follow_zipf(pool):
    sizes = np.array(sorted(Counter(row["kind"] for row in pool).values(), reverse=True))
    assert len(sizes) == len(KINDS)
    slope = np.polyfit(np.log(np.arange(1, len(sizes) + 1)), np.log(sizes), 1)[0]
    assert -1.15 < slope < -0.85
    assert np.argmax(sizes) == 0 and sizes[0] > 10 * sizes[-1]


def test_zipf_zero_is_balanced():
    sizes = Counter(row["kind"] for row in generate(20 * len(KINDS), 0, zipf=0.0, near_duplicates=0.0))
    assert set(sizes.values()) == {20}


def test_order_of_kinds_depends_on_the_seed():
    largest = {Counter(row["kind"] for row in generate(500, s)).most_common(1)[0][0] for s in range(6)}
    assert len(largest) > 1


def test_noise_share(pool):
    assert abs(np.mean([row["is_noise"] for row in pool]) - 0.3) < 0.03
    assert sum(row["is_noise"] for row in generate(1000, 4, noise=0.2, near_duplicates=0.0)) == 200
    assert not any(row["is_noise"] for row in generate(500, 4, noise=0.0))
    assert all(row["is_noise"] for row in generate(500, 4, noise=1.0))


def test_noise_is_what_does_not_verify(pool):
    for row in pool:
        assert is_answer(row["answer"], row["answer"])
        assert is_answer(row["answer"], _response(row)) != row["is_noise"]


def test_noise_sits_together(pool):
    """Cells of kind and wording: a fair part of the noise is in cells that are mostly noise."""
    templates = {k.name: [re.compile(_pattern(p)) for p in k.prompts] for k in KINDS}
    cells: dict[tuple[str, int], list[bool]] = {}
    for row in pool:
        wording = next(i for i, t in enumerate(templates[row["kind"]]) if t.search(_prompt(row)))
        cells.setdefault((row["kind"], wording // 2), []).append(row["is_noise"])
    concentrated = sum(sum(c) for c in cells.values() if np.mean(c) > 0.6)
    assert concentrated > 0.35 * sum(row["is_noise"] for row in pool)
    clean = sum(len(c) for c in cells.values() if np.mean(c) < 0.3)
    assert clean > 0.6 * len(pool)


def _pattern(template):
    return re.sub(r"\\{\w+\\}", ".+", re.escape(template))


def test_near_copies_are_there(pool):
    prompts = {_prompt(row) for row in pool}
    copies = [p for p in prompts if any(edit.format(q) == p for edit in EDITS for q in _unedited(p) & prompts)]
    assert len(copies) > 0.08 * len(pool)
    assert not any(_unedited(_prompt(row)) for row in generate(500, 0, near_duplicates=0.0))


def _unedited(prompt):
    ends = [edit.split("{}") for edit in EDITS]
    return {prompt[len(a) : len(prompt) - len(b)] for a, b in ends if prompt.startswith(a) and prompt.endswith(b)}


@pytest.mark.parametrize("seed", SEEDS)
def test_rater_is_useful_and_far_from_perfect(seed):
    rows = generate(4000, seed)
    right = np.array([row["rating"] for row in rows if not row["is_noise"]])
    wrong = np.array([row["rating"] for row in rows if row["is_noise"]])
    auc = np.mean(right[:, None] > wrong) + 0.5 * np.mean(right[:, None] == wrong)
    assert 0.70 < auc < 0.80


def test_source_says_little(pool):
    """Every site has noise and several kinds."""
    for site in {row["source"] for row in pool}:
        rows = [row for row in pool if row["source"] == site]
        assert len({row["kind"] for row in rows}) >= 5
        assert 0.05 < np.mean([row["is_noise"] for row in rows]) < 0.75


def test_no_evaluation_prompt_in_any_pool():
    asked = {row["prompt"] for seed in SEEDS for row in heldout(16, seed)}
    for seed in SEEDS:
        for row in generate(3000, seed):
            assert _prompt(row) not in asked
            assert not _unedited(_prompt(row)) & asked


def test_heldout_is_balanced_distinct_and_repeatable():
    rows = heldout(16, 0)
    assert set(Counter(row["kind"] for row in rows).values()) == {16}
    assert len(rows) == 16 * len(KINDS) == len({row["prompt"] for row in rows})
    assert rows == heldout(16, 0) != heldout(16, 1)
    with pytest.raises(ValueError, match="fewer than"):
        heldout(1000, 0)


def test_split_depends_on_content_only():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        fields, _ = draw_item(kind, rng, evaluation=True)
        assert reserved(kind.name, fields) and reserved(kind.name, dict(reversed(fields.items())))


def test_raw_text_repeats_and_has_no_chat_tokens():
    documents = list(raw_text(0, 2000))
    assert documents == list(raw_text(0, 2000)) and len(documents) == 2000
    assert not any("<|" in d or "|>" in d for d in documents)


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("cold", "cold", True),
        ("cold", "  Cold.\n", True),
        ("as soon as possible", "as soon  as\npossible", True),
        ("3, 12, 20", "3, 12, 20.", True),
        ("cold", "cold..", False),
        ("cold", "It is cold.", False),
        ("cold", "", False),
    ],
)
def test_verify(answer, response, right):
    assert is_answer(answer, response) is right
