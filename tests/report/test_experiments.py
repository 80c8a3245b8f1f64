"""The experiments and sweeps: they compose with each other, say what their tables show, and fill them."""

from __future__ import annotations

import re
import statistics
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dsel import config_groups
from dsel.config_groups import GROUPS
from dsel.errors import ConfigError
from dsel.record.reader import RunFolder
from dsel.report.match import Composer
from dsel.report.spec import Spec, keys, overrides, read
from dsel.report.tables import build
from tests.conftest import ROOT, jobs_of, shared

EXPERIMENTS = sorted(p.stem for p in (ROOT / "experiments").glob("[!_]*.yaml"))
SWEEPS = sorted(p.stem for p in (ROOT / "sweeps").glob("*.yaml"))


@cache
def composer(name: str, *more: str) -> Composer:
    return Composer([f"experiments={name}", *more])


@cache
def spec(name: str) -> Spec:
    return read(composer(name).report)


def pairs() -> list[tuple[str, str]]:
    """Every experiment with every sweep that its file says it is meant for; its own file, or the one it is based on."""
    found = []
    for name in EXPERIMENTS:
        sweeps = OmegaConf.select(OmegaConf.load(ROOT / "experiments" / f"{name}.yaml"), "report.sweeps")
        found += [(name, sweep) for sweep in sweeps or []]
    return found


@cache
def jobs(name: str, sweep: str) -> list[list[str]]:
    """The overrides of each job of the multirun, as Hydra's own sweeper splits them. Of seeds, the first and last."""
    config_groups.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=[f"experiments={name}", f"sweeps={sweep}"], return_hydra_config=True)
    params = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    batch = jobs_of(params)
    seeds = sorted({part for job in batch for part in job if part.startswith("seed=")}, key=lambda s: int(s[5:]))
    return [job for job in batch if not seeds or {seeds[0], seeds[-1]} & set(job)]


def test_there_are_those_that_there_should_be() -> None:
    assert set(EXPERIMENTS) >= {
        "wizardlm_main", "transfer", "num_clusters", "alpaca_main", "feedback", "embedders", "iterit_main",
        "iterit_ablations", "laptop", "quickstart",
    }  # fmt: skip
    assert set(SWEEPS) >= {
        "methods", "budgets", "clusters", "budget_by_k", "seeds", "feedback", "embedders", "laptop"
    }  # fmt: skip
    assert {sweep for _, sweep in pairs()} == set(SWEEPS)
    assert {name for name, _ in pairs()} == set(EXPERIMENTS)


@pytest.mark.parametrize(("name", "sweep"), pairs())
def test_every_experiment_composes_with_every_sweep_it_is_meant_for(name: str, sweep: str) -> None:
    """The last job of each: the slow test below has all."""
    config = composer(name, f"sweeps={sweep}", *jobs(name, sweep)[-1]).composed(()).config
    whole = OmegaConf.to_container(config, resolve=True)
    for group in GROUPS:
        instantiate(whole[group], _convert_="all")  # type: ignore[index,call-overload]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sweep"), pairs())
def test_every_job_of_a_sweep_is_in_a_cell_of_the_report(name: str, sweep: str) -> None:
    made = []
    for job in jobs(name, sweep):
        composed = composer(name, f"sweeps={sweep}", *job).composed(())
        config = OmegaConf.to_container(composed.config, resolve=True)
        facts = {"config": config, "choices": {"experiments": name, **composed.choices}, "metrics": {}}
        made.append(RunFolder({**facts, "started": "", "budget": 1, "rounds": []}, where=" ".join(job)))
    tables = [build(table, made, composer(name)) for table in spec(name).tables]
    shown = {run.where for table in tables for run in table.placed}
    assert [run.where for run in made if run.where not in shown] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_of_a_report_is_a_configuration_of_its_own(name: str) -> None:
    for table in spec(name).tables:
        seen: dict[str, tuple[str, ...]] = {}
        for row, parts in table.rows.items():
            for grid in {column.overrides for column in table.columns.values()}:
                content = str(composer(name).wanted(table.at + parts + grid, 0))
                assert content not in seen, f"{row}, {grid} and {seen[content]} are the same runs"
                seen[content] = (row, *grid)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_metrics_of_a_report_are_those_its_evaluator_has(name: str) -> None:
    tasks = set(composer(name).setting("evaluator.tasks")) | {"average"}
    for table in spec(name).tables:
        for column in table.columns.values():
            assert column.metric in tasks or column.metric.startswith("clustering."), column


def test_what_differs_is_said_of_tasks_that_are_measured() -> None:
    said = {name: table.differs for name in EXPERIMENTS for table in spec(name).tables if table.published}
    assert set(said.pop("targeted")) == {"mmlu", "bbh_cot_fewshot"} <= set(composer("targeted").evaluator["tasks"])
    assert set(said) == {"wizardlm_main", "transfer", "alpaca_main", "num_clusters", "feedback"}
    for name, differs in said.items():
        assert set(differs) == {"mmlu_chat", "gsm8k_cot"} <= set(composer(name).evaluator["tasks"])
        assert "8 bits" in differs["mmlu_chat"]


def test_published_averages_are_those_of_the_published_tasks() -> None:
    found = 0
    for name in EXPERIMENTS:
        for table in spec(name).tables:
            for row, figures in table.published.items():
                tasks = [value for column, value in figures.items() if column != "average"]
                if len(tasks) == 6:
                    assert statistics.mean(tasks) == pytest.approx(figures["average"], abs=0.11), (name, row)
                    found += 1
    assert found == 14


def test_published_figures_of_less_are_its_papers() -> None:
    text = shared("targets.md").read_text(encoding="utf-8")
    (table,) = spec("targeted").tables
    for row, name in {"less": "LESS", "random": "random", "full": "all"}.items():
        assert re.search(rf"{name} {table.published[row]['MMLU']}/[\d.]+/{table.published[row]['BBH']}", text)


def test_published_figures_are_those_of_the_papers() -> None:
    text = shared("method.md").read_text(encoding="utf-8").partition("## 6.")[2].partition("## 7.")[0]
    (table,) = spec("wizardlm_main").tables
    for line in re.findall(r"^\| ([A-Zk][^|]+) \| (\d[^\n]+) \|$", text, flags=re.MULTILINE):
        assert list(table.published[line[0]].values()) == [float(v) for v in line[1].split("|")]
    prose = " ".join(text.split())
    for own in spec("transfer").tables:
        for row, figures in own.published.items():
            *tasks, average = figures.values()
            assert f"{row.split()[0]} {' '.join(map(str, tasks))} → {average}" in prose
    (clusters,) = spec("num_clusters").tables
    for row, figures in clusters.published.items():
        assert f"{row} → {figures['average']}, {figures['silhouette × 100']}" in prose
    for row, figures in spec("alpaca_main").tables[0].published.items():
        assert f"{row} {figures['average']}" in prose
    (feedback,) = spec("feedback").tables
    for row, paper in {"perplexity": "perplexity", "LLM judge": "GPT-4", "reward model": "reward model"}.items():
        first, second, third = feedback.published[row].values()
        assert first == 44.0
        assert f"{paper} {second}, {third}" in prose


def test_rounds_of_the_feedback_experiment_are_the_first_of_the_whole() -> None:
    from dsel.selector.iterative import shares

    budgets = [composer("feedback", f"selector.rounds={n}").composed(()).config.budget for n in (1, 2, 3)]
    assert [shares(budget, n) for n, budget in enumerate(budgets, 1)] == [shares(10_000, 3)[:n] for n in (1, 2, 3)]


def test_overrides_are_written_as_in_a_command() -> None:
    assert overrides("selector=kmq clusterer.k=64") == ("selector=kmq", "clusterer.k=64")
    assert overrides(["a=[1,2]", "b='x y'"]) == ("a=[1,2]", "b='x y'")
    assert overrides(None) == overrides("") == ()
    assert keys(["+a.b=1", "selector/feedback=judge", "~c"]) == ["a.b", "selector/feedback", "c"]


SECTION = {"rows": {"a": "seed=1", "b": "seed=2"}, "columns": {"x": "accuracy", "y": "budget=0.1"}}


def test_tables_take_what_the_report_sets_for_all_of_them() -> None:
    found = read({**SECTION, "baseline": "a", "seeds": [1, 2], "tables": [{"title": "one"}, {"at": "model=tiny"}]})
    one, two = found.tables
    assert (one.title, one.at, one.baseline, one.seeds) == ("one", (), "a", (1, 2))
    assert (two.title, two.at) == ("", ("model=tiny",))
    assert one.columns["x"].overrides == ()
    assert (one.columns["y"].metric, one.columns["y"].overrides) == ("accuracy", ("budget=0.1",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": {}}, "report: unknown row"),
        ({"rows": {}}, r"report\.rows"),
        ({"columns": ["accuracy"]}, r"report\.columns"),
        ({"columns": {"y": "budget=0.1"}}, r"report\.metric"),
        ({"baseline": "c"}, r"report\.baseline=c"),
        ({"published": {"c": {"x": 1}}}, "'c' is no row"),
        ({"published": {"a": {"z": 1}}}, "'z': no column"),
        ({"columns": {"x": "accuracy", "y": "seed=3"}}, "both set seed"),
        ({"tables": [{"figures": []}]}, r"report\.tables\[0\]: unknown figures"),
        ({"differs": ["x"]}, r"report\.differs: give metric: text"),
        ({"seeds": ["x"]}, "invalid literal"),
        ({"figures": "map"}, r"report\.figures: give a list"),
        (
            {"figures": ["wieghts"]},
            r"'wieghts' is no figure \(did you mean weights\?\); there are weights, sources, map",
        ),
        ({"figures": ["map", "seeds"]}, r"'seeds' is no figure \(did you mean seed\?\).* vary budget, seed$"),
        ({"figures": ["budget acuracy"]}, r"no column of a table has 'acuracy' \(did you mean accuracy\?\)"),
    ],
)
def test_what_is_wrong_with_a_report_is_said(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read({**SECTION, **change})


def test_figures_are_of_what_the_tables_have() -> None:
    names = ["weights", "sources", "map", "budget", "seed accuracy"]
    assert read({**SECTION, "figures": names}).figures == tuple(names)


def test_no_place_of_a_machine_in_an_experiment() -> None:
    for path in [*Path(ROOT / "experiments").glob("*.yaml"), *Path(ROOT / "sweeps").glob("*.yaml")]:
        assert not re.search(r"(?<![\w.$])/(work|home|root|tmp)/", path.read_text(encoding="utf-8"))
