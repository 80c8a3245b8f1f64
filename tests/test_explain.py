"""What is said of an unknown key: what there is in the options that were chosen."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from dsel import config_groups
from dsel.config_groups import ROOT
from dsel.explain import explain


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["embedder=minilm", "embedder.model=x"],
            "unknown key 'embedder.model'; embedder=minilm has text, long",
        ),
        (["embedder=minilm", "embedder.batch=2"], "(did you mean embedder.batch_size?)"),
        (["embedder=tfidf_svd", "embedder.batch_size=2"], "; embedder=tfidf_svd has dimensions, "),
        (["trainer=lora", "trainer.lr=1"], "(did you mean trainer.learning_rate?)"),
        (["trainer.lora.rnk=1", "trainer=lora"], "(did you mean trainer.lora.rank?)"),
        (["selector=iterative", "selector.rounts=2"], "(did you mean selector.rounds?)"),
        (["selector=random", "selector.rounds=2"], "unknown key 'selector.rounds'"),
        (
            ["trainer=none", "trainer.epochs=1"],
            "; trainer=none has no options; full, iterit_paper, lora, ",
        ),
        (["scorer=none", "scorer.bogus=1"], "; scorer=none has no options"),
        (["selector=random,kmq", "budgit=2"], "(did you mean budget?)"),
        (["k=3"], "(did you mean clusterer.k?); there are data, targets, embedder, "),
        (["nonsense.here=3"], "unknown key 'nonsense'; there are data, targets, embedder, "),
    ],
)
def test_candidates_are_of_what_is_chosen(overrides: list[str], words: str) -> None:
    config_groups.register()
    grid = [text for text in overrides if "," not in text]  # a sweep composes each of its jobs
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"), pytest.raises(HydraException) as wrong:
        compose("config", overrides=grid)
    said = explain(wrong.value, overrides)
    assert words in said and "\n" not in said
    key = said.split("'")[1]
    assert f"did you mean {key}?" not in said
