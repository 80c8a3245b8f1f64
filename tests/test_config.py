"""Every file of every group composes and builds, without loading or downloading anything."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dsel.config_groups import GROUPS, options
from dsel.constraints import check_types
from tests.conftest import ROOT, computed
from tests.pages import presets

FILES = [(group, name) for group in GROUPS for name in options(group)]
EXPERIMENTS = sorted(p.stem for p in (ROOT / "experiments").glob("[!_]*.yaml"))
SWEEPS = sorted(p.stem for p in (ROOT / "sweeps").glob("*.yaml"))

WANTED = {
    "data": "alpaca alpaca_gpt4 wizardlm wizardlm_70k sharegpt dolly tulu_v2 tulu_v3 openhermes magpie ultrachat "
    "oasst1 lima no_robots openthoughts p3 local procedural",
    "embedder": "minilm e5_large e5_mistral llama2 qwen3_embedding bge_m3 gte nv_embed openai cohere tfidf_svd "
    "hashing model2vec rds",
    "targets": "none local split lm_eval",
    "clusterer": "faiss_kmeans",
    "selector": "random uniform longest quality deita qdit kcenter kmeans_closest kmeans_uniform kmq kmeans_centroids "
    "kmeans_median kmeans_dynamic ifd graphfilter facility_location semdedup nearest bm25 dsir tsds less gist "
    "loss delta_loss mig full per_source",
    "model": "llama2_7b llama3_8b llama3_1_8b llama3_2_1b llama3_2_3b mistral_7b mistral_7b_v0_3 qwen2_5_1_5b "
    "qwen3_0_6b qwen3_1_7b qwen3_4b qwen3_8b olmo2_7b gemma3_1b gemma3_4b smollm2_135m smollm2_360m smollm2_1_7b tiny",
    "trainer": "full lora qlora paper iterit_paper none",
    "evaluator": "paper iterit_paper ifeval reasoning open_llm_v2 gsm8k_local heldout_loss procedural none",
    "tracker": "wandb none",
}


def fields_of(target: str) -> list[Any]:
    module, _, name = target.rpartition(".")
    return [field for field in dataclasses.fields(getattr(import_module(module), name)) if field.init]


def composed(*overrides: str):  # type: ignore[no-untyped-def]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_file_composes_and_builds(group: str, name: str) -> None:
    config = composed(f"{group}={name}")[group]
    component = instantiate(config, _convert_="all")
    assert type(component).__module__.startswith(f"dsel.{group}.")
    check_types(component, group)
    fields = set(config) - {"_target_"}
    assert all(hasattr(component, field) for field in fields)


@pytest.mark.parametrize("group", WANTED)
def test_groups_hold_what_they_should(group: str) -> None:
    assert set(WANTED[group].split()) <= {name for g, name in FILES if g == group}


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_option_of_a_component_is_in_its_file(group: str, name: str) -> None:
    """So that it can be overridden without a plus sign, and be seen with --cfg job."""
    config = composed(f"{group}={name}")[group]
    options = {field.name for field in fields_of(config._target_)}
    loading = {"hub", "revision", "chat_template", "pad_token", "trust_remote_code", "allow_bin"}
    exempt = loading if name == "tiny" else set()
    missing = options - set(config) - exempt - {"needs_subsets"}
    assert not missing, f"conf/{group}/{name}.yaml lacks {', '.join(sorted(missing))}"


OTHERWISE = {  # where a configuration starts from another value than a Python program does
    ("trainer/full", "dtype"): "SFT() takes the model's, as trainer=lora does",
    ("model/_causal_lm", "lora_targets"): "the layers that the models of the papers have",
    ("model/tiny", "dtype"): "it is built here, not loaded",
    ("scorer/judge", "options"): "what the papers' judge is asked with",
    ("selector/iterative", "max_new_tokens"): "follows the evaluator",
}
YAML = sorted(p for p in (ROOT / "conf").glob("*/*.yaml") if p.parent.name in GROUPS)


@pytest.mark.parametrize("path", YAML, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_says_what_differs(path: Path) -> None:
    """From its base; where it has none, it is its class's options with their defaults."""
    group, config = path.parent.name, OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(config, dict)
    bases = [
        base for base in config.pop("defaults", []) if isinstance(base, str) and base != "_self_" and "@" not in base
    ]
    for base in bases:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            before = compose(f"{group}/{base}")[group]
        repeated = [option for option, value in config.items() if option in before and before[option] == value]
        assert not repeated, f"{', '.join(repeated)}: as in {base}"
    if bases and not path.stem.startswith("_") or "_target_" not in config:
        return
    for field in fields_of(config["_target_"]):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if config.get(field.name, "???") != "???" and default is not dataclasses.MISSING:
            same = config[field.name] == (list(default) if isinstance(default, tuple) else default)
            assert same or (f"{group}/{path.stem}", field.name) in OTHERWISE, field.name


def test_every_option_is_explained_in_one_of_its_files() -> None:
    """In the folders that `--help` names."""
    lines = [(path.parent.name, line) for path in YAML for line in path.read_text().splitlines()]
    named = {(group, found[1]) for group, line in lines if (found := re.match(r"(\w+):", line))}
    explained = {(group, found[1]) for group, line in lines if (found := re.match(r"(\w+):.*  # ", line))}
    mappings = {("evaluator", "tasks"), ("scorer", "quality"), ("scorer", "complexity")}
    assert {(group, name) for group, name in named - explained if name not in ("_target_", "defaults")} <= mappings


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str) -> None:
    from dsel.config_groups import register

    register()
    config = composed(f"experiments={name}")
    for group in GROUPS:
        instantiate(config[group], _convert_="all")


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_is_plain_hydra(name: str) -> None:
    sweep = OmegaConf.load(ROOT / "sweeps" / f"{name}.yaml")
    assert set(sweep) == {"hydra"}
    assert sweep.hydra.sweeper.params


def test_defaults_need_no_key_no_code_of_others_and_nothing_to_ask_for() -> None:
    config = composed()
    parts = [instantiate(config[group], _convert_="all") for group in GROUPS]
    assert not [part for part in parts if type(part).__module__.split(".")[2] in ("cohere", "openai", "judge", "deita")]
    listed = {row[1]: row[-1] for row in presets()}
    hubs = [part.hub for part in parts if getattr(part, "hub", None)]
    assert len(hubs) == 3 and {listed[hub] for hub in hubs} == {"open"}
    assert config.trainer.lora is not None and config.trainer.learning_rate == 2e-4  # fits one GPU, and learns
    assert 0 < config.budget < 1 and config.clusterer.k is None  # whatever the size of the pool
    asked = composed("selector=iterative", "model=llama3_8b")
    assert asked.selector.feedback._target_.endswith("perplexity.Perplexity")  # the model in training, no other


def test_the_papers_setting_is_in_its_experiments() -> None:
    from dsel.config_groups import register

    register()
    config = composed("experiments=wizardlm_main", "trainer=full")
    assert config.budget == 10_000
    assert config.trainer.epochs == 3
    assert (config.trainer.learning_rate, config.trainer.warmup) == (2e-5, 0.03)  # the scripts'; the text is below
    assert config.trainer.batch_size == 64
    assert config.trainer.max_length == 2048
    assert (config.clusterer.niter, config.clusterer.nredo, config.clusterer.seed) == (300, 5, 42)
    assert config.clusterer.k == 2048
    assert config.embedder.model == "embed-english-v3.0"
    assert config.scorer._target_ == "dsel.scorer.deita.Evol"
    best = composed("experiments=wizardlm_main", "selector=iterative_reward").selector.feedback
    assert best.scorer.hub == "sfairXC/FsfairX-LLaMA3-RM-v0.1"
    lora = composed("trainer=lora").trainer.lora
    assert (lora.rank, lora.alpha, lora.dropout) == (64, 16, 0.1)


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - {"quickstart", "laptop", "laptop_targeted", "targeted"}))
def test_experiments_of_the_papers_follow_no_default(name: str) -> None:
    from dsel.config_groups import register

    register()
    config = composed(f"experiments={name}")
    assert config.embedder._target_ == "dsel.embedder.cohere.Cohere" and config.scorer._target_.endswith("deita.Evol")
    assert config.clusterer.k == (64 if name == "alpaca_main" else 2048)
    assert config.model.hub in ("meta-llama/Llama-2-7b-hf", "meta-llama/Meta-Llama-3-8B", "mistralai/Mistral-7B-v0.1")


def test_experiments_train_as_the_text_of_their_paper_says() -> None:
    from dsel.config_groups import register

    register()
    settings = ("epochs", "learning_rate", "warmup", "schedule", "batch_size", "max_length", "weight_decay")
    papers = {
        "wizardlm_main transfer num_clusters alpaca_main feedback embedders": (3, 1e-5, 1000, "linear", 64, 2048, 0.0),
        "iterit_main iterit_ablations": (3, 2e-5, 0.03, "cosine", 32, 1024, 0.0),
    }
    for names, expected in papers.items():
        for name in names.split():
            trainer = composed(f"experiments={name}").trainer
            assert tuple(trainer[setting] for setting in settings) == expected, name
            assert trainer.lora is None
            with_adapters = composed(f"experiments={name}", "trainer=lora").trainer
            assert (with_adapters.learning_rate, with_adapters.warmup) == (2e-4, 0.03)


def test_no_file_asks_for_remote_code_or_code_execution() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        text = path.read_text()
        assert "trust_remote_code: true" not in text
        assert "allow_code_execution: true" not in text


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsel.run", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def test_help_answers_at_once_and_lists_the_groups() -> None:
    took = []
    for _ in range(3):
        before = computed()
        done = cli("--help")
        took.append(computed() - before)
    assert done.returncode == 0
    assert re.search(r"^selector: .*kmeans_uniform.*random", done.stdout, flags=re.MULTILINE)
    assert "experiments: " in done.stdout
    assert not re.search(r"^\S+: (.*, )?_", done.stdout, flags=re.MULTILINE)  # bases are no choices
    assert f"{ROOT}/conf/<group>/" in done.stdout
    assert "sweeps: " in done.stdout
    assert min(took) < 1


def test_the_configuration_is_shown_without_running_it() -> None:
    done = cli("--cfg", "job", "selector=kmeans_uniform", "model=llama3_8b")
    assert done.returncode == 0
    shown = OmegaConf.create(done.stdout)
    assert shown.model.hub == "meta-llama/Meta-Llama-3-8B"
    assert shown.selector._target_ == "dsel.selector.kmeans_uniform.KMeansUniform"


def test_shell_completion_knows_the_groups() -> None:
    done = cli("-sc", "query=bash", COMP_LINE="dsel selector=", COMP_POINT="14")
    assert "selector=random" in done.stdout.split()


def test_importing_the_entry_point_loads_nothing_heavy() -> None:
    code = "import sys, dsel.run; print({'torch', 'transformers', 'datasets', 'faiss', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_path_of_a_machine_in_a_config() -> None:
    for folder in ("conf", "experiments", "sweeps"):
        for path in Path(ROOT / folder).rglob("*.yaml"):
            assert "/home/" not in path.read_text()
