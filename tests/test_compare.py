"""Two subsets side by side: the numbers, real run folders, and what is said about what is no subset."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from dsel.cache import Cache
from dsel.compare import __main__ as command
from dsel.compare.comparison import compare, composition, contrast, distribution, lengths, ngrams, overlap
from dsel.compare.report import markdown, show, write
from dsel.compare.subset import Subset, read, read_pool
from dsel.config_groups import GROUPS
from dsel.errors import ConfigError
from dsel.experiment import Experiment
from dsel.files import read_json, unsealed, write_sealed
from dsel.pool import Example, Pool
from dsel.record.writer import Record
from dsel.selector.base import Selection
from tests.conftest import ROOT, make_pool


def made(*prompts: str, sources: Sequence[str] | None = None, **columns: Sequence[float]) -> Subset:
    """A subset of one-turn examples, each answered by its prompt in capitals."""
    examples = []
    for i, prompt in enumerate(prompts):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": prompt.upper()}]
        examples.append(Example(f"e{i}", messages, "none" if sources is None else sources[i], {}))
    found = Subset.of("made", Pool.build("made", examples), unnamed="none")
    return replace(found, columns={name: np.array(values, dtype=float) for name, values in columns.items()})


def written(file: Path, *prompts: str, **columns: Sequence[Any]) -> Path:
    """A file of one-turn examples."""
    rows = [
        {"prompt": p, "completion": p.upper(), **{n: c[i] for n, c in columns.items()}} for i, p in enumerate(prompts)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# --- the numbers --------------------------------------------------------------------------------------------


def test_overlap_by_hand() -> None:
    assert overlap("abcd", "cdefg") == {
        "both": 2,
        "share_of_a": 0.5,
        "share_of_b": 0.4,
        "jaccard": pytest.approx(2 / 7),
    }


some = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12)


@settings(deadline=None)
@given(some, some)
def test_overlap_is_symmetric_and_bounded(a: list[str], b: list[str]) -> None:
    one, two = overlap(a, b), overlap(b, a)
    assert one["jaccard"] == two["jaccard"]
    assert (one["share_of_a"], one["share_of_b"]) == (two["share_of_b"], two["share_of_a"])
    assert one["both"] <= min(len(set(a)), len(set(b)))
    assert (one["jaccard"] == 1) == (set(a) == set(b))
    assert (one["jaccard"] == 0) == (not set(a) & set(b))


def test_composition_by_hand() -> None:
    found = composition("xxyz", "xyyy", {"x": 5, "y": 3, "z": 1, "w": 1, "empty": 0})
    assert found["total_variation"] == {
        "a_b": pytest.approx((0.25 + 0.5 + 0.25) / 2),
        "a_pool": pytest.approx((0 + 0.05 + 0.15 + 0.1) / 2),
        "b_pool": pytest.approx((0.25 + 0.45 + 0.1 + 0.1) / 2),
    }
    assert found["entropy"]["a"] == pytest.approx(1.5)
    assert found["entropy"]["b"] == pytest.approx(2 - 0.75 * np.log2(3))
    assert found["covered"] == {"a": 3, "b": 2, "pool": 4}
    assert [(row["name"], row["points"]) for row in found["rows"]] == [("y", -50), ("x", 25), ("z", 25), ("w", 0)]
    assert found["rows"][0] == {
        "name": "y", "points": -50, "a": 1, "share_a": 0.25, "b": 3, "share_b": 0.75, "pool": 3, "share_pool": 0.3,
    }  # fmt: skip


def test_what_the_pool_does_not_have_covers_nothing_of_it() -> None:
    assert composition("xq", "yq", {"x": 1, "y": 1})["covered"] == {"a": 1, "b": 1, "pool": 2}
    assert composition("xq", "yq")["covered"] == {"a": 2, "b": 2}


@settings(deadline=None)
@given(some, some)
def test_total_variation_is_a_distance(a: list[str], b: list[str]) -> None:
    there, back = composition(a, b), composition(b, a)
    distance = there["total_variation"]["a_b"]
    assert distance == pytest.approx(back["total_variation"]["a_b"])
    assert -1e-12 <= distance <= 1 + 1e-12
    assert composition(a, a)["total_variation"]["a_b"] == 0
    if not set(a) & set(b):
        assert distance == pytest.approx(1)
    assert sum(row["points"] for row in there["rows"]) == pytest.approx(0, abs=1e-6)
    assert 0 <= there["entropy"]["a"] <= np.log2(len(set(a))) + 1e-9


def test_distributions_by_hand() -> None:
    assert distribution([1, 2, 3, 4, np.nan]) == {
        "n": 4, "mean": 2.5, "lower_quartile": 1.75, "median": 2.5, "upper_quartile": 3.25,
    }  # fmt: skip
    assert distribution([np.nan]) is None
    # the first two of A and the last two of B are their own: of 6 equally likely orders, 2 are as extreme
    found = contrast("x", [1, 2, 3, 4], [3, 4, 5, 6], [1.0, 2, 3], np.array([0, 1]), np.array([2, 3]))
    assert found["difference"] == -2
    assert found["p"] == pytest.approx(1 / 3)
    assert found["above"] == 0
    assert found["pool"]["mean"] == 2


numbers = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8)


@settings(deadline=None)
@given(numbers, numbers)
def test_above_is_the_share_of_pairs(a: list[float], b: list[float]) -> None:
    found = contrast("x", [*a, np.nan], [*b, np.nan], None, np.arange(len(a) + 1), np.arange(len(b) + 1))
    pairs = [(x > y) + (x == y) / 2 for x in a for y in b]
    assert found["above"] == pytest.approx(np.mean(pairs))
    assert 0 <= found["p"] <= 1
    assert found["pool"] is None


def test_nothing_of_ones_own_is_no_sample() -> None:
    found = contrast("x", [1, 2], [1, 2, 3], None, np.arange(0), np.array([2]))
    assert found["p"] is None
    assert found["above"] is None
    assert found["difference"] == -0.5


def test_words_and_pairs_by_hand() -> None:
    found = ngrams(["red cat"], ["Cat sat", "red"], ["red cat sat", "dog"])  # red cat sat dog, red-cat cat-sat
    assert found == {"a": 3, "b": 4, "both": 2, "pool": 6, "share_a": 0.5, "share_b": pytest.approx(4 / 6)}
    assert ngrams(["red cat"], ["Cat sat", "red"]) == {
        "a": 3, "b": 4, "both": 2, "pool": None, "share_a": None, "share_b": None,
    }  # fmt: skip
    assert ngrams(["new words"], ["red"], ["red"])["a"] == 0
    assert ngrams(["?"], ["!"], ["."])["share_a"] is None


sentences = st.lists(
    st.lists(st.sampled_from(["ab", "cd", "ef", "x", "Ab", "été", "\n"]), max_size=6).map(" ".join), min_size=1
)


@settings(deadline=None)
@given(sentences, sentences, sentences)
def test_words_and_pairs_are_those_of_scikit_learn(a: list[str], b: list[str], pool: list[str]) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    analyse = CountVectorizer(ngram_range=(1, 2)).build_analyzer()
    in_a, in_b, in_pool = ({gram for text in texts for gram in analyse(text)} for texts in (a, b, pool))
    found = ngrams(a, b, pool)
    assert (found["a"], found["b"], found["pool"]) == (len(in_a & in_pool), len(in_b & in_pool), len(in_pool))
    assert found["both"] == len(in_a & in_b & in_pool)


def test_lengths_are_of_all_turns_before_and_of_the_last_response() -> None:
    turns = [("system", "be kind"), ("user", "one two  three"), ("assistant", "four"), ("user", "five\nsix"),
             ("assistant", "seven eight nine")]  # fmt: skip
    messages = [{"role": role, "content": text} for role, text in turns]
    long = Subset.of("long", Pool.build("long", [Example("1", messages, "s", {})]))
    values = {name: (float(x[0]), float(y[0]), pool) for name, x, y, pool in lengths(long, made("a b"), None)}
    assert values == {"words in prompt": (8, 2, None), "words in response": (3, 2, None), "turns": (2, 1, None)}
    (row,) = compare(long, made("a b"))["only_a"]
    assert (row["prompt"], row["response"]) == ("five six", "seven eight nine")


# --- two subsets --------------------------------------------------------------------------------------------


def test_the_same_content_is_the_same_example() -> None:
    found = compare(made("p", "q", "r", "q"), made("q", "s"))
    assert found["same_by"] == "content"
    assert found["overlap"] == {
        "both": 1, "share_of_a": pytest.approx(1 / 3), "share_of_b": 0.5, "jaccard": 0.25, "by_chance": None,
    }  # fmt: skip
    assert (found["a"]["examples"], found["a"]["distinct"]) == (4, 3)
    assert [row["id"] for row in found["only_a"]] == ["e0", "e2"]
    assert [row["prompt"] for row in found["only_b"]] == ["s"]
    assert [row["response"] for row in found["only_b"]] == ["S"]


def test_a_subset_against_itself() -> None:
    a = made("p", "q", "r", sources=["x", "y", "y"], rating=[1, 2, 3])
    found = compare(a, a)
    assert found["overlap"]["jaccard"] == found["overlap"]["share_of_a"] == 1
    assert found["sources"]["total_variation"]["a_b"] == 0
    assert found["only_a"] == found["only_b"] == []
    assert all(row["difference"] == 0 and row["p"] is None for row in found["distributions"])
    assert found["ngrams"]["a"] == found["ngrams"]["both"]


def test_nothing_in_common() -> None:
    found = compare(made("p", "q", sources=["x", "y"]), made("r", "s", "t", sources=["z", "z", "w"]), examples=2)
    assert found["overlap"]["jaccard"] == 0
    assert found["sources"]["total_variation"]["a_b"] == 1
    assert [len(found["only_a"]), len(found["only_b"])] == [2, 2]


def test_those_only_in_one_come_by_score_then_in_order() -> None:
    a = made(*"abcdef", rating=[1, 3, np.nan, 3, 2, 9])
    b = made("f", rating=[9])
    found = compare(a, b, examples=4)
    assert found["score"] == "rating"
    assert [(row["id"], row["score"]) for row in found["only_a"]] == [("e1", 3), ("e3", 3), ("e4", 2), ("e0", 1)]
    assert compare(a, b, examples=9)["only_a"][-1]["score"] is None
    assert compare(a, b, examples=0)["only_a"] == []
    unscored = replace(a, columns={})
    assert [row["id"] for row in compare(unscored, b)["only_a"]] == ["e0", "e1", "e2", "e3", "e4"]


def test_only_the_columns_of_both_are_compared() -> None:
    pool = made(*"abcd", rating=[1, 2, 3, 4])
    found = compare(made("a", "b", rating=[1, 2], year=[1, 1]), made("c", rating=[3]), pool)
    (rating,) = [row for row in found["distributions"] if "words" not in row["name"] and row["name"] != "turns"]
    assert (rating["name"], rating["difference"], rating["pool"]["mean"]) == ("rating", -1.5, 2.5)


def test_long_texts_are_cut_and_kept_on_a_line() -> None:
    (row,) = compare(made("word\n\t" * 100), made("x"))["only_a"]
    assert row["prompt"] == ("word " * 100)[:80] + "…"
    assert row["response"].startswith("WORD WORD")


def test_the_pool_says_what_files_do_not() -> None:
    pool = made(*"pqrs", sources=["x", "x", "y", "z"])
    found = compare(made("p", "q"), made("r", "new"), pool)
    assert found["sources"]["covered"] == {"a": 1, "b": 1, "pool": 3}
    assert {row["name"]: row["b"] for row in found["sources"]["rows"]} == {
        "x": 0,
        "y": 1,
        "z": 0,
        "(not in the pool)": 1,
    }
    assert "1 of B's examples are not in the pool that was named" in found["notes"]
    assert found["pool"] == {"name": "made", "examples": 4}
    assert compare(made("p"), made("q"))["sources"] is None


def test_sources_are_those_of_the_pool_whatever_a_run_called_them() -> None:
    pool = made(*"pqrsp", sources=["web", "web", "books", "code", "books"])
    a, b = made("p", "r", sources=["mine", "mine"]), made("p", "q", "s", sources=["books", "other", "new"])
    found = compare(a, b, pool)["sources"]
    assert found["covered"] == {"a": 2, "b": 3, "pool": 3}
    rows = {row["name"]: (row["a"], row["b"]) for row in found["rows"]}
    assert rows == {"web": (1, 1), "books": (1, 1), "code": (0, 1)}  # of two places of `p`, the one it says itself


# --- files and folders --------------------------------------------------------------------------------------


def test_files_in_any_format(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", "p", "q", "q", rating=[1, 2, 2.5])
    table = pa.table({"instruction": ["q", "r"], "output": ["Q", "R"], "dataset": ["web", "books"], "rating": [3, 5]})
    pq.write_table(table, tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("question,answer\nq,Q\n")
    found = compare(read(a), read(tmp_path / "b.parquet"))
    assert found["overlap"]["both"] == 1
    assert found["a"]["distinct"] == 2
    assert read(a).sources is None
    assert read(tmp_path / "b.parquet").sources == ["web", "books"]
    assert read(a).columns["rating"].tolist() == [1, 2, 2.5]
    assert compare(read(tmp_path / "c.csv"), read(tmp_path / "b.parquet"))["overlap"]["share_of_a"] == 1


def by_rounds(folder: Path, pool: Pool, *rounds: Sequence[int], **settings: Any) -> Path:
    """A run folder as `Record` writes it, of a selection in rounds."""
    folder.mkdir()
    record = Record(folder, {"seed": 0, **settings}, {"selector": "by_hand"})
    record.pool(pool, 4)
    for chosen in rounds:
        record.round(Selection(np.array(chosen), scores=np.float32(chosen), repeats=True), pool)
    record.finish("finished")
    return folder


@pytest.fixture
def rounds_pool() -> Pool:
    pool = make_pool(10)
    rows = [{"messages": messages} for messages in pool.messages]
    return Pool.build("ten", [Example(f"e{i}", row["messages"], "s", row) for i, row in enumerate(rows)])


def test_rounds_by_hand(tmp_path: Path, rounds_pool: Pool) -> None:
    a = read(by_rounds(tmp_path / "a", rounds_pool, [0, 1], [2, 0], [3, 4, 4]))
    b = read(by_rounds(tmp_path / "b", rounds_pool, [2, 1], [3, 9]))
    assert a.ids == ["e0", "e1", "e2", "e3", "e4", "e4"]
    assert [r.tolist() for r in a.rounds] == [[0, 1], [2, 0], [3, 4, 4]]
    found = compare(a, b)
    assert found["same_by"] == "id"
    assert found["overlap"] == {
        "both": 3, "share_of_a": 0.6, "share_of_b": 0.75, "jaccard": 0.5, "by_chance": 5 * 4 / 10,
    }  # fmt: skip
    assert found["rounds"] == [
        {"round": 1, "a": 2, "a_in_b": 1, "b": 2, "b_in_a": 2, "both": 1, "both_so_far": 1, "jaccard_so_far": 1 / 3},
        {"round": 2, "a": 2, "a_in_b": 1, "b": 2, "b_in_a": 1, "both": 0, "both_so_far": 2, "jaccard_so_far": 0.4},
        {"round": 3, "a": 2, "a_in_b": 1, "b": None, "b_in_a": None, "both": None, "both_so_far": 3,
         "jaccard_so_far": 0.5},
    ]  # fmt: skip
    assert [row["id"] for row in found["only_a"]] == ["e4", "e0"]  # by the score they were chosen by
    assert compare(b, b)["rounds"][1]["both"] == 2
    assert compare(read(by_rounds(tmp_path / "c", rounds_pool, [5])), read(tmp_path / "c"))["rounds"] == []


def test_a_run_may_rename_columns_and_mix_formats(tmp_path: Path) -> None:
    rows = [{"ask": "p", "completion": "P"}, {"instruction": "q", "input": "", "output": "Q"}]
    contents = made("p", "q").messages or ()
    pool = Pool.build("mixed", [Example(f"e{i}", contents[i], "s", row) for i, row in enumerate(rows)])
    run = by_rounds(tmp_path / "r", pool, [1, 0], data={"columns": {"prompt": "ask"}})
    assert compare(read(run), made("q", "p"))["overlap"]["jaccard"] == 1


def test_a_run_may_name_its_format_and_roles(tmp_path: Path) -> None:
    chat = [{"role": "asker", "content": "p"}, {"role": "assistant", "content": "P"}]
    rows = [{"messages": 3.5, "conversations": chat, "prompt": "x", "completion": "y"}]
    pool = Pool.build("named", [Example("e0", (made("p").messages or ())[0], "s", row) for row in rows])
    run = by_rounds(tmp_path / "r", pool, [0], data={"format": "sharegpt", "roles": {"asker": "user"}})
    assert compare(read(run), made("p"))["overlap"]["jaccard"] == 1


def test_a_selection_without_its_text(tmp_path: Path, rounds_pool: Pool) -> None:
    run = by_rounds(tmp_path / "r", rounds_pool, [1, 2])
    bare = shutil.copy(run / "selection.parquet", tmp_path / "mine.parquet")
    whole = Subset.of("whole", rounds_pool)
    found = compare(read(bare), read(run))
    assert found["same_by"] == "id"
    assert found["overlap"]["jaccard"] == 1
    assert any("by id" in note for note in found["notes"])
    assert found["ngrams"] is None
    completed = compare(read(bare), made("Say the number 1."), whole)
    assert completed["same_by"] == "content"
    assert completed["ngrams"]["a"] > 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real runs that end with the subset, by selector; they share a pool of 150 examples from three sources."""
    folder = tmp_path_factory.mktemp("compared")
    rng, sites = np.random.default_rng(0), ["forum", "blog", "wiki"]
    words = [
        " ".join(rng.choice(["red", "blue", "dog", "cat", "runs", "sits", "far"], size=3 + i % 9)) for i in range(150)
    ]
    written(
        folder / "pool.jsonl", *[f"{i} {w}" for i, w in enumerate(words)], source=[sites[i % 7 % 3] for i in range(150)]
    )
    common = ["data=local", f"data.path={folder / 'pool.jsonl'}", "budget=40", "embedder=tfidf_svd",
              "embedder.dimensions=8", "clusterer.k=6", "clusterer.nredo=1", "scorer=length", "trainer=none",
              "evaluator=none", "tracker=none"]  # fmt: skip
    out = {"pool": folder / "pool.jsonl"}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for method in ("random", "kmq", "kmeans_uniform", "kmeans_centroids"):
            config = compose("config", overrides=[*common, f"selector={method}"])
            parts = {group: instantiate(config[group], _convert_="all") for group in GROUPS}
            experiment = Experiment(**parts, budget=config.budget, seed=config.seed, cache=Cache(folder / "cache"))
            out[method] = folder / method
            out[method].mkdir()
            plain = OmegaConf.to_container(config, resolve=True)
            record = Record(out[method], plain, {"selector": method, "scorer": "length", "data": "local"})
            experiment.check()
            experiment.run(record)
            record.finish("finished")
    return out


def selection(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "selection.parquet").to_pylist()


def test_two_runs_on_one_pool(runs: dict[str, Path]) -> None:
    found = compare(read(runs["kmq"]), read(runs["kmeans_uniform"]))
    a, b = selection(runs["kmq"]), selection(runs["kmeans_uniform"])
    ids_a, ids_b = {row["id"] for row in a}, {row["id"] for row in b}
    assert found["same_by"] == "id"
    assert found["overlap"]["both"] == len(ids_a & ids_b)
    assert found["overlap"]["by_chance"] == pytest.approx(40 * 40 / 150)
    sources = Counter(json.loads(line)["source"] for line in runs["pool"].read_text().splitlines())
    assert {row["name"]: row["pool"] for row in found["sources"]["rows"]} == sources
    assert {row["name"]: row["a"] for row in found["clusters"]["rows"] if row["a"]} == Counter(r["cluster"] for r in a)
    assert found["clusters"]["covered"]["pool"] == 6
    assert sum(row["pool"] for row in found["clusters"]["rows"]) == 150
    (quality,) = [row for row in found["distributions"] if row["name"] == "length"]
    scores = {row["id"]: row["score"] for row in pq.read_table(runs["kmq"] / "scores.parquet").to_pylist()}
    assert quality["pool"]["mean"] == pytest.approx(np.mean(list(scores.values())))
    assert quality["a"]["mean"] == pytest.approx(np.mean([scores[name] for name in ids_a]))
    assert quality["b"]["median"] == pytest.approx(np.median([scores[name] for name in ids_b]))
    assert quality["difference"] > 0  # k-means-quality draws by it
    best = [row["score"] for row in found["only_b"]]
    assert best == sorted((scores[name] for name in ids_b - ids_a), reverse=True)[:5]


def test_one_runs_scores_judge_the_others_choice(runs: dict[str, Path]) -> None:
    assert not (runs["random"] / "scores.parquet").exists()
    found = compare(read(runs["random"]), read(runs["kmq"]))
    assert found["distributions"][0]["name"] == "length"
    assert found["distributions"][0]["a"]["n"] == 40
    assert found["clusters"] is None
    assert found["sources"]["covered"]["pool"] == 3


def test_only_the_same_clusters_are_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    def refused(a: Path, b: Path) -> bool:
        found = compare(read(a), read(b))
        return found["clusters"] is None and any("clusters are not compared" in note for note in found["notes"])

    assert refused(runs["kmq"], runs["kmeans_centroids"])
    own = shutil.copytree(runs["kmeans_centroids"], tmp_path / "own")  # 40 clusters of its own, beside the pool's six
    shutil.copy(runs["kmq"] / "clusters.parquet", own)
    assert refused(runs["kmq"], own)
    other = shutil.copytree(runs["kmq"], tmp_path / "other")
    table = pq.read_table(other / "clusters.parquet")
    pq.write_table(table.take([1, 0, 2, 3, 4, 5]), other / "clusters.parquet")
    assert refused(runs["kmq"], other)
    old = [shutil.copytree(runs[name], tmp_path / f"old {name}") for name in ("kmq", "kmeans_uniform")]
    for folder in old:
        (folder / "clusters.parquet").unlink()
    assert refused(*old)
    assert compare(read(old[0]), read(old[0]))["clusters"]["total_variation"]["a_b"] == 0


def test_folder_and_files_of_a_run_are_the_same(runs: dict[str, Path]) -> None:
    whole = compare(read(runs["kmq"]), read(runs["random"]))
    for name in ("selection.parquet", "selected.jsonl"):
        found = compare(read(runs["kmq"] / name), read(runs["random"] / name))
        assert {**found, "a": None, "b": None} == {**whole, "a": None, "b": None}


def test_a_copy_of_a_subset_is_still_known_by_content(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copy(runs["kmq"] / "selected.jsonl", tmp_path / "copy.jsonl")
    found = compare(read(copy), read(runs["kmq"]))
    assert found["same_by"] == "content"
    assert found["overlap"]["jaccard"] == 1


def test_a_run_stands_for_its_pool(runs: dict[str, Path]) -> None:
    by_run, by_file = read_pool(runs["random"]), read_pool(runs["pool"])
    assert by_run.contents == by_file.contents
    found = compare(read(runs["kmq"]), read(runs["random"]), by_run)
    assert found["pool"]["examples"] == 150
    assert 0 < found["ngrams"]["share_a"] < 1
    assert found["distributions"][-1]["pool"]["n"] == 150
    assert not any("not in the pool" in note for note in found["notes"])


def test_a_record_cannot_have_anything_built(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["random"], tmp_path / "r")
    facts = unsealed(read_json(tmp_path / "r" / "record.json"))
    for target in ("os.system", "dsel.data.reader.gzip.open", "dsel.cache.Cache"):
        facts["config"]["data"] = {"_target_": target}
        write_sealed(tmp_path / "r" / "record.json", facts)
        with pytest.raises(ConfigError, match=r"its record has data\._target_=.*, no setting"):
            read_pool(tmp_path / "r")


def test_another_pool_is_not_taken_for_the_runs_own(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["random"], tmp_path / "r")
    facts = unsealed(read_json(tmp_path / "r" / "record.json"))
    facts["config"]["data"]["limit"] = 100
    write_sealed(tmp_path / "r" / "record.json", facts)
    with pytest.raises(ConfigError, match="is not what it was"):
        read_pool(tmp_path / "r")


# --- the report ---------------------------------------------------------------------------------------------


def shown(result: dict[str, Any]) -> str:
    with Path("/dev/null").open("w") as nowhere:
        console = Console(width=160, record=True, file=nowhere)
        show(result, console)
    return console.export_text()


def test_texts_are_shown_as_they_are_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "[red]a|b[/red] :smile: \x1b[2J <b> `x`"
    found = compare(made(nasty, sources=["so\nurce"]), made("x", sources=["y"]))
    show(found)
    text, page = capsys.readouterr().out, markdown(found)
    assert "[red]a|b[/red] :smile:" in text
    assert "\x1b" not in text + page
    row = next(line for line in page.splitlines() if "smile" in line)
    assert r"\[red\]a\|b\[/red\]" in row
    assert row.replace(r"\|", "").count("|") == 5
    assert r"\<b\>" in row


def test_every_table_is_square_and_everything_is_said(runs: dict[str, Path], tmp_path: Path) -> None:
    found = compare(read(runs["kmq"]), read(runs["kmeans_uniform"]), read_pool(runs["pool"]))
    text = shown(found)
    for title in (
        "Two subsets",
        "Overlap",
        "Coverage",
        "Sources",
        "Clusters",
        "Distributions",
        "Only in A",
        "Only in B",
    ):
        assert title in text
    for part in ("forum", "Jaccard index", "entropy over clusters, bits", "words in response", "kmeans_uniform"):
        assert part in text
    json_file, page = write(found, tmp_path / "new" / "out")
    for block in page.read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace(r"\|", "").count("|") for line in lines}) <= 1
    back = json.loads(json_file.read_text())
    assert back["overlap"] == pytest.approx(found["overlap"])
    assert set(back) == set(found)


def test_many_groups_are_cut_in_the_report_alone() -> None:
    many = [f"s{i}" for i in range(40)]
    found = compare(made(*many, sources=many), made("x", sources=["s0"]))
    assert len(found["sources"]["rows"]) == 40
    assert "12 of 40, those that differ most" in shown(found)


# --- the command line ---------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, runs: dict[str, Path]) -> Path:
    """A folder with all kinds of things that are no subset, and `good.jsonl`."""
    written(tmp_path / "good.jsonl", "p", "q")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "odd.txt").write_text("text")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "table.jsonl").write_text('{"a": 1}\n')
    for name in ("failed", "torn", "empty", "short", "alien"):
        shutil.copytree(runs["random"], tmp_path / name)
    (tmp_path / "failed" / "selection.parquet").unlink()
    record = tmp_path / "failed" / "record.json"
    write_sealed(record, {**unsealed(read_json(record)), "status": "failed", "error": "no space left"})
    (tmp_path / "torn" / "record.json").write_text("{")
    table = pq.read_table(tmp_path / "empty" / "selection.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty" / "selection.parquet")
    pq.write_table(table.drop_columns("index"), tmp_path / "alien" / "selection.parquet")
    lines = (tmp_path / "short" / "selected.jsonl").read_text().splitlines()
    (tmp_path / "short" / "selected.jsonl").write_text("\n".join(lines[:3]))
    return tmp_path


BAD = [
    (["good.jsonl"], "the following arguments are required: B"),
    (["good.jsonl", "good.jsonl", "--nonsense"], "unrecognized arguments: --nonsense"),
    (["good.jsonl", "gone.jsonl"], "gone.jsonl: no such file or folder"),
    (["good.jsonl", "good.jsonl", "--pool", "gone"], "gone: no such file or folder"),
    (["good.jsonl", "good.jsonl", "--examples", "-1"], "--examples -1: give a whole number"),
    (["good.jsonl", "good.jsonl", "--out", "odd.txt"], "--out odd.txt: a file is in the way"),
    (["good.jsonl", "empty.jsonl"], "no usable example in empty.jsonl (the files are empty)"),
    (["good.jsonl", "folder"], "folder: not a run folder, it has no record.json"),
    (["good.jsonl", "odd.txt"], "odd.txt: not a data file this reads"),
    (["good.jsonl", "broken.parquet"], "broken.parquet: not a readable Parquet file"),
    (["good.jsonl", "table.jsonl"], "no instruction format has the columns a"),
    (["good.jsonl", "failed"], "failed: this run has chosen nothing (failed: no space left)"),
    (["good.jsonl", "failed/selected.jsonl"], "this run has chosen nothing"),
    (["good.jsonl", "torn"], "torn/record.json: not JSON"),
    (["good.jsonl", "empty"], "empty/selection.parquet: holds no example"),
    (["good.jsonl", "alien"], "alien/selection.parquet: not what a run writes, it has no column index"),
    (["good.jsonl", "short"], "short/selected.jsonl: 3 examples, but selection.parquet names 40"),
    (["good.jsonl", "good.jsonl", "--pool", "folder"], "folder: no data file in this folder"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_gets_one_clear_line(
    arguments: list[str],
    message: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", ["dsel.compare", *arguments])
    with pytest.raises(SystemExit) as end:
        command.main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("dsel: ")
    assert message in err


def test_the_command_shows_and_writes(runs: dict[str, Path], tmp_path: Path) -> None:
    options = ["--pool", str(runs["pool"]), "--out", str(tmp_path / "out"), "--examples", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "dsel.compare", str(runs["kmq"]), str(runs["random"]), *options],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Jaccard index" in done.stdout
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert len(result["only_a"]) == 3
    assert "Only in A (3 of" in done.stdout
    assert (tmp_path / "out" / "comparison.md").read_text().startswith("# Two subsets compared")


def test_two_runs_of_one_pool_are_compared_with_it(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {}
    for name, more in (("unnamed", []), ("named", ["--pool", str(runs["kmq"])]), ("none", ["--pool", "none"])):
        command.run([str(runs["kmq"]), str(runs["random"]), "--out", str(tmp_path / name), *more])
        known[name] = json.loads((tmp_path / name / "comparison.json").read_text())
    assert known["unnamed"]["ngrams"] == known["named"]["ngrams"] != known["none"]["ngrams"]
    assert known["unnamed"]["ngrams"]["pool"] > 0 and known["none"]["ngrams"]["pool"] is None
    assert known["unnamed"]["sources"]["covered"]["pool"] > 0


def test_a_pool_that_is_gone_is_said_and_left_out(tmp_path: Path, rounds_pool: Pool) -> None:
    a, b = (by_rounds(tmp_path / name, rounds_pool, [0, 1], data={}) for name in "ab")
    command.run([str(a), str(b), "--out", str(tmp_path / "out")])
    (note,) = [n for n in json.loads((tmp_path / "out" / "comparison.json").read_text())["notes"] if "left out" in n]
    assert note.startswith("the pool that both chose from is left out: ")


def test_a_pool_of_files_by_their_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", "p", "r"), written(tmp_path / "b.jsonl", "q")
    web, books = written(tmp_path / "1.jsonl", "p", "q"), written(tmp_path / "2.jsonl", "r")
    pool = f"{{web: {web}, books: {books}}}"
    command.run([str(a), str(b), "--pool", pool, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["sources"]["covered"] == {"a": 2, "b": 1, "pool": 2}
    assert found["pool"] == {"name": "web, books", "examples": 3}
    with pytest.raises(ConfigError, match=r"--pool=gone\.jsonl: no such file"):
        command.run([str(a), str(b), "--pool", "{web: gone.jsonl}"])
    for wrong in ("{web: [", "{}", "{web: 3}"):
        with pytest.raises(ConfigError, match=r"not a mapping such as '\{label: file\}'"):
            command.run([str(a), str(b), "--pool", wrong])


def test_rows_that_are_no_part_of_it_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "a.jsonl", "a")
    file.write_text(file.read_text() + '{"else": "c"}\n')
    monkeypatch.setattr("sys.argv", ["dsel compare", "-q", str(file), str(file)])
    monkeypatch.setenv("DSEL_LOG", "INFO")  # put back afterwards
    command.main()
    assert "skipped 1 rows" in caplog.text and not logging.getLogger("dsel").isEnabledFor(logging.INFO)


def test_tables_are_as_wide_as_columns_says_when_piped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = written(tmp_path / "a.jsonl", "p " * 60), written(tmp_path / "b.jsonl", "q " * 60)
    for columns, fits in (("", False), ("100", True)):
        monkeypatch.setenv("COLUMNS", columns)
        command.run([str(a), str(b)])
        lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "│┏┡└"]
        assert (max(map(len, lines)) <= 100) == fits


def test_help_and_complaints_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dsel.compare.__main__ import run\n"
        "for arguments in (['--help'], ['gone', 'gone']):\n"
        "    try:\n        run(arguments)\n"
        "    except BaseException as error:\n        print(type(error).__name__)\n"
        "print({'numpy', 'rich', 'datasets', 'pyarrow', 'hydra'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-3:] == ["SystemExit", "ConfigError", "set()"], done.stderr
