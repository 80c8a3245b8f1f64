"""Every option of every group given what it is not: one line, with the option, its value and what is wanted.

What an option may be is written down here by hand, not read from what it is declared with. Values are set as Hydra sets
them, in this process; some go through the command.
"""

from __future__ import annotations

import copy
import re
import resource
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsel import config_groups
from dsel.cache import Cache
from dsel.config_groups import GROUPS
from dsel.configured import component, need_names
from dsel.constraints import shown
from dsel.errors import ConfigError
from dsel.experiment import Experiment
from dsel.explain import explain
from dsel.overrides import readable
from dsel.references import refuse_overrides
from dsel.run import described
from dsel.selector.kmq import KMQ
from tests.conftest import ROOT

Run = Callable[..., CompletedProcess[str]]

LIGHT = {
    "data": "procedural",
    "targets": "split",
    "embedder": "tfidf_svd",
    "clusterer": "faiss_kmeans",
    "scorer": "length",
    "selector": "kmq",
    "model": "tiny",
    "trainer": "full",
    "evaluator": "procedural",
    "tracker": "none",
    "engine": "local",
}

BASE = [*(f"{group}={name}" for group, name in LIGHT.items()), "targets.sources=[a]", "budget=10"]

CHOICES = (  # one for each class
    "data=procedural data=local data=p3 data=oasst1 targets=local targets=split targets=lm_eval "
    "targets=procedural embedder=tfidf_svd embedder=minilm embedder=nv_embed embedder=llama2 embedder=cohere "
    "embedder=openai embedder=hashing embedder=model2vec embedder=rds "
    "clusterer=faiss_kmeans scorer=column scorer=deita_quality scorer=evol scorer=ifd scorer=judge "
    "scorer=length scorer=perplexity scorer=reward scorer=superfiltering selector=deita selector=facility_location "
    "selector=graphfilter selector=ifd selector=iterative selector=iterit selector=kcenter selector=kmeans_centroids "
    "selector=kmeans_closest selector=kmeans_dynamic selector=kmeans_median selector=kmeans_uniform selector=kmq "
    "selector=longest selector=qdit selector=quality selector=random selector=semdedup selector=uniform "
    "selector=nearest selector=bm25 selector=dsir selector=tsds selector=less selector=gist "
    "selector=loss selector=delta_loss selector=mig selector=full selector=per_source "
    "selector/feedback=perplexity selector/feedback=reward selector/feedback=verifier model=tiny model=llama2_7b "
    "trainer=full evaluator=paper evaluator=procedural evaluator=gsm8k_local evaluator=heldout_loss tracker=wandb "
    "engine=local engine=ray"
).split()
FURTHER = {
    "scorer=column": ["scorer.name=a"],
    "evaluator=gsm8k_local": ["evaluator.path=README.md"],
    "embedder=rds": ["+model=tiny"],
    "targets=split": ["targets.sources=[a]"],
    "targets=lm_eval": ["targets.tasks=[a]"],
    "targets=procedural": ["targets.kinds=[capital]"],
}

VALUES = {
    "word": "abc",
    "null": "null",
    "minus": "-1",
    "zero": "0",
    "half": "0.5",
    "three": "3",
    "huge": "1" + "0" * 30,
    "list": "[1, a]",
    "mapping": "{zz: 1}",
    "true": "true",
    "empty": "''",
}

SORTS = {  # what an option may be → which of VALUES it may be
    "flag": "true",
    "count": "three",
    "count or null": "three null",
    "whole": "zero three",
    "long enough": "",
    "from 1": "three",
    "number": "minus zero half three",
    "positive": "half three",
    "positive or null": "half three null",
    "not negative": "zero half three",
    "share": "zero half",
    "part": "zero half",
    "ratio": "half null",
    "above zero": "half",
    "cosine": "minus zero half",
    "holdout": "zero half three",
    "sample or null": "half three null",
    "text": "word",
    "text or null": "word null",
    "any text": "word empty",
    "choice": "",
    "choice or null": "null",
    "file or null": "null",
    "texts": "",
    "free": "mapping",
    "names or null": "word null",
    "LoRA": "null",
    "columns": "null",
    "texts or null": "null",
    "grid": "null",
    "targets": "word",
}

OPTIONS = {  # group → what they may be → its options; `module.option` where it differs from others of that name
    "data": {
        "file or null": "path decontaminate_with",
        "text or null": "split revision",
        "texts": "subsets",
        "columns": "columns roles",
        "texts or null": "languages",
        "choice or null": "format",
        "count or null": "limit",
        "choice": "on_bad_row replies decontaminate",
        "holdout": "holdout",
        "sample or null": "sample",
        "text": "name hub",
        "names or null": "files",
        "flag": "needs_subsets streaming",
        "count": "size decontaminate_words",
        "whole": "seed sample_seed",
        "share": "noise",
        "part": "near_duplicates",
        "not negative": "zipf",
    },
    "targets": {
        "file or null": "path",
        "text or null": "split task subtask",
        "columns": "columns",
        "choice or null": "format",
        "count or null": "limit",
        "texts": "sources tasks kinds",
        "positive": "split.examples",
        "count": "lm_eval.examples procedural.examples",
        "choice": "documents",
        "whole": "seed",
    },
    "embedder": {
        "choice": "text long store dtype pooling input_type rds.model",
        "text": "model",
        "any text": "hub prefix",
        "file or null": "path",
        "text or null": "revision",
        "count": "max_length batch_size concurrency dimensions ngram_max min_df max_features",
        "flag": "normalize trust_remote_code allow_bin end_token sublinear_tf",
        "choice or null": "device base_url",
        "whole": "max_retries seed",
        "count or null": "sentence_transformer.max_length nv_embed.max_length model2vec.max_length openai.dimensions",
    },
    "clusterer": {
        "count": "niter nredo",
        "count or null": "k sample_per_cluster",
        "whole": "seed exact_up_to",
        "flag": "spherical silhouette",
        "not negative": "tol",
        "choice": "backend device",
        "grid": "k_grid",
        "number": "low_quality",
    },
    "scorer": {
        "text or null": "name revision length.hub",
        "file or null": "file path",
        "choice": "rating turns dtype quality complexity turn prompt scale on_failure unit",
        "any text": "hub",
        "long enough": "max_length max_characters",
        "flag": "trust_remote_code allow_bin needs_key log",
        "count": "tokens_a_batch attempts concurrency",
        "choice or null": "device chat_template base_url",
        "text": "model",
        "free": "options",
        "positive or null": "requests_per_minute",
        "positive": "timeout",
        "whole": "max_retries",
    },
    "selector": {
        "number": "threshold",
        "choice": "metric weights restart final scope turn normalise draw feedback score_type update tail "
        "estimate allocation then tokens scorer device rule on_taken tsds.neighbours gain projection eps subtask "
        "reduce shares focus",
        "flag": "fill accumulate end_token replace norm whiten",
        "count": "buckets max_k kde_k max_words checkpoints ngram_max rounds max_new_tokens max_prompt epochs "
        "per_cluster perplexity.max_length",
        "positive": "guide_epochs k1 c memory steepness",
        "not negative": "temperature sigma loss.weight outside smoothing",
        "above zero": "tsds.alpha power warmup variance window",
        "whole": "seed",
        "text or null": "labels",
        "texts or null": "per_source.weights",
        "ratio": "ratio",
        "from 1": "update_ratio",
        "share": "decay alpha b max_share low high",
        "long enough": "max_length dimensions",
        "count or null": "neighbours",
        "positive or null": "quality_scale",
        "cosine": "semdedup.threshold mig.threshold",
    },
    "model": {
        "any text": "hub",
        "file or null": "path",
        "text or null": "revision pad_token",
        "choice": "dtype attention vllm",
        "choice or null": "chat_template",
        "targets": "lora_targets",
        "flag": "trust_remote_code allow_bin",
        "whole": "seed",
        "count": "steps hidden layers tensor_parallel",
    },
    "trainer": {
        "positive": "epochs learning_rate checkpoint_minutes",
        "count": "batch_size max_length micro_batch_size log_every",
        "choice or null": "batch_tokens dtype quantization",
        "not negative": "warmup weight_decay max_grad_norm",
        "choice": "schedule optimizer strategy",
        "LoRA": "lora",
        "flag": "packing gradient_checkpointing save merge",
    },
    "evaluator": {
        "choice": "tasks engine",
        "count or null": "limit",
        "flag": "chat_template allow_code_execution",
        "whole": "seed heldout_seed",
        "count": "batch_size max_new_tokens per_kind max_length",
        "file or null": "path fewshot_path",
        "text or null": "split",
        "texts or null": "kinds",
    },
    "tracker": {
        "text": "project",
        "text or null": "entity group",
        "texts": "tags",
        "choice": "mode",
    },
    "engine": {
        "count": "workers cpus",
        "text": "address",
    },
}
MAY_BE = {group: {name: what for what, names in by.items() for name in names.split()} for group, by in OPTIONS.items()}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsel.model.weights._files_of_hub", lambda hub, revision: frozenset())
    monkeypatch.setattr("dsel.engine.ray.Ray.check", lambda self: None)  # which asks a cluster


@cache
def whole() -> DictConfig:
    return composed(*BASE)


def composed(*overrides: str, name: str | None = "config") -> DictConfig:
    config_groups.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@cache
def light(group: str) -> Any:
    return component(whole(), group)


def said(act: Callable[[], object]) -> str | None:
    """What the command would say of an error; None where there is none. Anything but one line is an error here."""
    try:
        act()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        return explain(error)
    return None


@cache
def parsed(value: str) -> Any:
    return OverridesParser.create().parse_override(f"x={value}").value()


def complaint(section: Any, group: str, option: str, value: str) -> str | None:
    """What is said of an override of an option of a group whose section this is."""
    config = OmegaConf.create({group: section})
    OmegaConf.set_struct(config, True)

    def check() -> None:
        OmegaConf.update(config, option, parsed(value), merge=True)  # as Hydra does
        components = {other: component(config, other) if other == group else light(other) for other in GROUPS}
        Experiment(**components, budget=10, seed=0, cache=Cache("cache")).check()

    return said(check)


def inside(section: Any, name: str) -> Iterator[str]:
    """The options of a section and of a section in it that is no choice of its own."""
    for key in section:
        if key != "_target_":
            yield f"{name}.{key}"
        if key in ("quality", "complexity"):
            yield f"{name}.{key}.rating"


def composed_sections() -> Iterator[tuple[str, tuple[str, ...], str, Any]]:
    """(group, overrides that choose a class, name of its module, all of the group's section)."""
    for choice in CHOICES:
        group = choice.partition("=")[0].partition("/")[0]
        base = ("selector=iterative", choice) if "/" in choice else (choice, *FURTHER.get(choice, ()))
        whole = composed(f"+{base[0]}", *base[1:], name=None)
        section = OmegaConf.to_container(whole[group], resolve="+model=tiny" in base)  # which it refers to
        inner: Any = section["feedback"] if "/" in choice else section  # type: ignore[index,call-overload]
        yield group, base, inner["_target_"].split(".")[-2], section


def cases() -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    """(group, overrides that choose a class, option, what it may be)."""
    for group, base, module, section in SECTIONS:
        inner, first = (section["feedback"], "selector.feedback") if "/" in base[-1] else (section, group)
        for option in inside(inner, first):
            leaf = option.rpartition(".")[2]
            known = MAY_BE[group]
            what = known.get(f"{module}.{leaf}", known.get(leaf, f"{option} is not in the table"))
            yield group, base, option, what


SECTIONS = list(composed_sections())
SECTION = {base: section for _, base, _, section in SECTIONS}
CASES = list(cases())


def test_the_table_has_every_class_and_every_option() -> None:
    files = [p for group in GROUPS for p in (ROOT / "conf" / group).rglob("*.yaml")]
    classes = {
        name.split(".")[-2] for path in files for name in re.findall(r"^_target_: (\S+)", path.read_text(), re.M)
    }
    missing = classes - {module for _, _, module, _ in SECTIONS}
    assert missing == {"none"}, f"add to CHOICES a choice that is of the class in {', '.join(missing - {'none'})}"
    unknown = [what for *_, what in CASES if what not in SORTS]
    assert not unknown, f"add to OPTIONS what each may be: {', '.join(unknown)}"
    used = {(group, option.rpartition(".")[2]) for group, _, option, _ in CASES}
    assert used == {(group, option.rpartition(".")[2]) for group, known in MAY_BE.items() for option in known}
    assert sum(len(VALUES) - len(SORTS[what].split()) for *_, what in CASES) >= 275


@pytest.mark.parametrize(
    ("group", "base", "option", "what"), CASES, ids=[f"{' '.join(base)} {option}" for _, base, option, _ in CASES]
)
def test_a_wrong_value_gets_one_line_and_a_right_one_none(
    group: str, base: tuple[str, ...], option: str, what: str
) -> None:
    wrong = []
    for kind, value in VALUES.items():
        line = complaint(SECTION[base], group, option, value)
        if kind in SORTS[what].split():
            if line is not None and line.startswith(f"{option}="):
                wrong.append(f"is right: {line}")
        elif line is None:
            wrong.append(f"passes: {option}={value}")
        elif "\n" in line or not (line.startswith(option) or f"{option}={value}" in line):
            wrong.append(f"{option}={value} → {line}")
    assert not wrong, "\n".join(wrong)


WHOLE = [  # overrides of a whole group, of the top, and of what is inside of options → how the line begins
    (["selector=[random]"], "selector=[random]: wants one of bm25, deita, delta_loss"),
    (["selector=null"], "selector=null: wants one of bm25, deita"),
    (["selector={a: 1}"], "unknown key 'selector.a'"),
    (["selector=5"], "selector=5: wants one of bm25, deita"),
    (["selector=true"], "selector=true: wants one of bm25, deita"),
    (["selector="], "selector='': wants one of bm25, deita"),
    (["selector=rndom"], "selector=rndom: no such option (did you mean random?)"),
    (["model="], "model='': wants one of gemma3_1b"),
    (["model=[tiny,llama2_7b]"], "model=[tiny, llama2_7b]: wants one of gemma3_1b"),
    (["data=[]"], "data=[]: wants one of alpaca"),
    (["experiments=5"], "experiments=5: wants one of alpaca_main"),
    (["experiments=[laptop,quickstart]"], "experiments=[laptop, quickstart]: wants one of alpaca_main"),
    (["sweeps=true"], "sweeps=true: wants one of"),
    (["=5"], "=5: names no option"),
    (["~selector"], "selector is not set"),
    (["~budget"], "budget is not set"),
    (["selector.feedback=foo"], "unknown key 'selector.feedback'"),
    (["selector=iterative", "selector.feedback=foo"], "selector.feedback=foo: wants a feedback, as selector/feedback="),
    (["selector=iterative", "selector/feedback=foo"], "selector/feedback=foo: no such option"),
    (["selector=iterative", "selector/feedback=null"], "selector/feedback=null: wants one of judge"),
    (["selector=iterative", "~selector.feedback"], "selector.feedback is not set"),
    (["selector=semdedup", "selector.then=null"], "selector.then=null: wants a selector, as selector@selector.then="),
    (["selector=semdedup", "selector@selector.then=5"], "selector=5: wants one of bm25, deita"),
    (["+selector.foo=1"], "selector.foo=1: KMQ has no such option"),
    (["+selector.drow=1"], "selector.drow=1: KMQ has no such option (did you mean draw?)"),
    (["selector._target_=foo"], "selector._target_=foo: wants the dotted name of a class"),
    (["selector._target_=5"], "selector._target_=5: wants the dotted name of a class"),
    (["selector._target_=null"], "selector._target_=null: wants the dotted name of a class"),
    (["~selector._target_"], "selector._target_ is not set: a choice names its class"),
    (["selector._target_=dsel.selector.random.Rndom"], "selector._target_=dsel.selector.random.Rndom: wants"),
    (["~embedder", "+embedder=5"], "embedder=5: wants one of"),
    (["evaluator=heldout_loss"], "HeldoutLoss measures on held-out examples: set data.holdout"),
    (["+foo=1"], "foo=1: unknown; there are budget, seed"),
    (["+sed=1"], "sed=1: unknown (did you mean seed?)"),
    (["clusterer.k=${foo}"], "clusterer.k: Interpolation key 'foo' not found"),
    (["clusterer.k=???"], "clusterer.k: Missing mandatory value"),
    (["clusterer.k.foo=3"], "unknown key 'clusterer.k.foo'"),
    (["clusterer.kk=3"], "unknown key 'clusterer.kk' (did you mean clusterer.k?)"),
    (["budget=null"], "budget=null: wants a number"),
    (["budget=[1]"], "budget=[1]: wants a number"),
    (["budget=-1"], "budget=-1: give a fraction of the pool"),
    (["budget=0"], "budget=0: give a fraction of the pool"),
    (["budget=1.5"], "budget=1.5: above 1 a budget is a count"),
    (["budget=1e300"], "budget=1e+300: too large a number"),
    (["budget=nan"], "budget=nan: wants a number"),
    (["budget=true"], "budget=true: wants a number"),
    (["budget=''"], "budget='': wants a number"),
    (["budget={a: 1}"], "budget={a: 1}: wants a number"),
    (["budget=half"], "budget=half: wants a number"),
    (["seed=null"], "seed=null: wants a whole number from 0"),
    (["seed=1.5"], "seed=1.5: wants a whole number from 0"),
    (["seed=-1"], "seed=-1: wants a whole number from 0"),
    (["seed=true"], "seed=true: wants a whole number from 0"),
    (["seed=4294967296"], "seed=4294967296: wants a whole number from 0, below 4294967296"),
    (["seed=abc"], "seed=abc: wants a whole number from 0"),
    (["seed=[0]"], "seed=[0]: wants a whole number from 0"),
    (["runs=null"], "runs=null: wants text, not empty"),
    (["runs=''"], "runs='': wants text, not empty"),
    (["runs=[a]"], "runs=[a]: wants text, not empty"),
    (["runs={a: 1}"], "runs={a: 1}: wants text, not empty"),
    (["runs=true"], "runs=true: wants text, not empty"),
    (["cache=null"], "cache=null: wants text, not empty"),
    (["cache=''"], "cache='': wants text, not empty"),
    (["cache=[a]"], "cache=[a]: wants text, not empty"),
    (["cache=5"], "cache=5: wants text, not empty; in quotes it is text: \"cache='5'\""),
    (["cache='s3://b/../c'"], "cache=s3://b/../c: wants a bucket, or a folder in it"),
    (["scratch=null"], "scratch=null: wants text, not empty"),
    (["scratch=5"], "scratch=5: wants text, not empty"),
    (["runs='s3://'"], "runs=s3://: wants a bucket, or a folder in it, as in s3://bucket/folder"),
    (["runs='s3:/b/c'"], "runs=s3:/b/c: a URL has two slashes, and a folder of this name would be ./s3:/b/c"),
    (["rerun=null"], "rerun=null: wants true or false"),
    (["rerun=maybe"], "rerun=maybe: wants true or false"),
    (["rerun=1"], "rerun=1: wants true or false"),
    (["plan=null"], "plan=null: wants true or false"),
    (["plan=[true]"], "plan=[true]: wants true or false"),
    (["plan=''"], "plan='': wants true or false"),
    (["plan_for=[0]"], "plan_for=[0]: wants a list of numbers from 1"),
    (["plan_for=[many]"], "plan_for=[many]: wants a list of numbers from 1"),
    (["plan_for=1e7"], "plan_for=10000000.0: wants a list of numbers from 1"),
    (["trainer=lora", "trainer.lora={foo: 1}"], "unknown key 'trainer.lora.foo'"),
    (["trainer=lora", "+trainer.lora.foo=1"], "trainer.lora.foo=1: unknown; there are rank, alpha, dropout"),
    (["trainer=lora", "+trainer.lora.rang=1"], "trainer.lora.rang=1: unknown (did you mean rank?)"),
    (["trainer=lora", "~trainer.lora.rank"], "trainer.lora={alpha: 16, dropout: 0.1}: set rank"),
    (["trainer=lora", "trainer.lora.rank=0"], "trainer.lora.rank=0: wants a whole number from 1"),
    (["trainer=lora", "trainer.lora.alpha=-1"], "trainer.lora.alpha=-1: wants a number above 0"),
    (["trainer=lora", "trainer.lora.dropout=1"], "trainer.lora.dropout=1: wants a number from 0, below 1"),
    (["trainer=lora", "trainer.lora=true"], "trainer.lora=true: wants a mapping with rank, alpha, dropout or null"),
    (["trainer=full", "trainer.schedule=cosin"], "trainer.schedule=cosin: wants one of linear, cosine"),
    (["trainer=full", "trainer.optimizer=adamw_torch_fusd"], "trainer.optimizer=adamw_torch_fusd: wants one of"),
    (["model.attention=flash"], "model.attention=flash: wants one of eager, sdpa"),
    (["trainer=full", "trainer.strategy=fsdp"], "trainer.strategy=fsdp: wants one of auto, single, ddp, fsdp2, zero3"),
    (["engine.workers=all"], "engine.workers=all: wants a whole number from 1 or auto"),
    (["engine=ray", "engine.cpus=0"], "engine.cpus=0: wants a whole number from 1"),
    (["model.lora_targets=[]"], "model.lora_targets=[]: wants text, not empty or a list"),
    (["model.lora_targets=[q_proj, 5]"], "model.lora_targets=[q_proj, 5]: wants"),
    (["tracker=wandb", "tracker.tags=[a, 5]"], "tracker.tags=[a, 5]: wants a list of text"),
    (["tracker=wandb", "tracker.tags=a"], "tracker.tags=a: wants a list of text"),
    (["tracker=wandb", "tracker.mode=of"], "tracker.mode=of: wants one of auto, online, offline"),
    (["evaluator.tasks=[]"], "evaluator.tasks=[]: wants a mapping"),
    (
        ["evaluator=paper", "evaluator.tasks.hellaswag=null"],
        "evaluator.tasks.hellaswag=null: wants a mapping with shots, metric",
    ),
    (
        ["evaluator=paper", "evaluator.tasks.hellaswag.shots=-1"],
        "evaluator.tasks.hellaswag.shots=-1: wants a whole number from 0",
    ),
    (
        ["evaluator=paper", "evaluator.tasks.hellaswag.metric=''"],
        "evaluator.tasks.hellaswag.metric='': wants text, not empty",
    ),
    (
        ["evaluator=paper", "+evaluator.tasks.hellaswag.limit=0"],
        "evaluator.tasks.hellaswag.limit=0: wants a whole number from 1",
    ),
    (
        ["evaluator=paper", "+evaluator.tasks.hellaswag.shot=1"],
        "evaluator.tasks.hellaswag.shot=1: unknown (did you mean shots?)",
    ),
    (["evaluator=paper", "~evaluator.tasks.hellaswag.shots"], "evaluator.tasks.hellaswag={metric: "),
    (["data=local", "data.path=''"], "data.path='': wants a path"),
    (["data=local", "data.path=[a, '']"], "data.path=[a, '']: wants a path"),
    (["data=local", "data.path={a: 5}"], "data.path={a: 5}: wants a path"),
    (["data=local", "data.path={a: ''}"], "data.path={a: ''}: wants a path"),
    (["data=local", "data.path=README.md", "data.columns={promt: a}"], "data.columns: promt is none of"),
    (["data=local", "data.path=README.md", "data.roles={a: tol}"], "data.roles: a is to be 'tol'"),
    (["data=local", "data.path=README.md", "data.format=alpacca"], "data.format=alpacca: give one of"),
    (["data=alpaca", "data.subsets=[a, 1]"], "data.subsets=[a, 1]: wants a list of text"),
    (["scorer=evol", "scorer.quality=null"], "scorer.quality=null: wants a section as"),
    (["scorer=evol", "scorer.path=5"], "scorer.path=5: wants text, not empty or null"),
    (["scorer=evol", "scorer.quality.max_length=x"], "scorer.quality.max_length=x: wants a whole number from 64"),
    (["scorer=judge", "scorer.base_url=localhost"], "scorer.base_url=localhost: wants text such as https://"),
    (["clusterer.k_grid=[16, 1]"], "clusterer.k_grid=[16, 1]: wants a list of whole numbers from 2"),
]


def all_of(overrides: list[str]) -> None:
    """All that happens to a command line before anything loads."""
    given = [readable(override) for override in overrides]
    refuse_overrides(given)
    need_names(given)
    (option, _, value), config = given[-1].partition("="), starting(*given[:-1])
    if OmegaConf.select(config, option) is None or option in GROUPS or value.startswith(("{", "[]")):
        described(composed(*BASE, *given))
    else:  # the same, without to compose it all once more
        config = copy.deepcopy(config)
        OmegaConf.update(config, option, parsed(value), merge=True)
        described(config)


@cache
def starting(*overrides: str) -> DictConfig:
    return composed(*BASE, *overrides)


@pytest.mark.parametrize(("overrides", "line"), WHOLE, ids=[" ".join(overrides) for overrides, _ in WHOLE])
def test_a_wrong_group_or_setting_gets_one_line(overrides: list[str], line: str) -> None:
    found = said(lambda: all_of(overrides))
    assert found is not None and found.startswith(line) and "\n" not in found


def test_variables_of_the_users_own_stay_possible() -> None:
    made: Any = described(composed(*BASE, "+many=7", "clusterer.k=${many}")).clusterer
    assert made.k == 7


@pytest.mark.parametrize(
    "needs", [["quality"], "quality", None, frozenset({"qualty"}), {"quality": 1}, frozenset({1})], ids=str
)
def test_a_selector_that_needs_what_there_is_not_is_named(needs: Any) -> None:
    class Mine(KMQ):
        pass

    Mine.needs = needs
    components = {group: Mine() if group == "selector" else light(group) for group in GROUPS}
    line = said(Experiment(**components, budget=10, seed=0, cache=Cache("cache")).check)
    assert line is not None and line.startswith(f"Mine.needs={shown(needs)}: wants a frozenset of embeddings, ")


@pytest.mark.parametrize("override", ["selector=[random]", "clusterer.niter=abc", "cache=null", "runs=''"])
def test_the_command_says_it_at_once_and_leaves_nothing(override: str, dsel_run: Run, tmp_path: Path) -> None:
    runs = [] if override.startswith("runs") else [f"runs={tmp_path}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = dsel_run(*BASE, *runs, override)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2 and done.stdout == ""
    line = done.stderr.removesuffix("\n")
    assert line.startswith(f"dsel: {override.lstrip('+')}: ") and "\n" not in line
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2  # of a processor, which other processes may keep it from
    assert override == "clusterer.niter=abc" or not list(tmp_path.iterdir())
