"""Weights that are .bin files alone: refused in one line before anything is computed, or read without their code."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsel.embedder.causal_lm import CausalLMEmbedder
from dsel.embedder.sentence_transformer import SentenceTransformer
from dsel.errors import ConfigError
from dsel.model import weights
from dsel.model.causal_lm import CausalLM
from dsel.model.weights import need_weights
from dsel.scorer.deita import Deita, Evol
from dsel.scorer.perplexity import Perplexity
from tests.scorer.pools import MIXED, pool_of


@pytest.fixture
def pickled(small_model: Path, tmp_path: Path) -> Path:
    """The small model as it would have been saved years ago."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "old"
    shutil.copytree(small_model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_folder_of_bin_alone_is_refused_by_all_who_load_models(pickled: Path) -> None:
    rating = Deita(hub="", path=str(pickled))
    for component in (
        rating,
        Evol(rating, Deita(hub="", path=str(pickled), rating="complexity")),
        Perplexity(hub="", path=str(pickled)),
        CausalLM(hub="", path=str(pickled)),
        CausalLMEmbedder(hub="", path=str(pickled)),
        SentenceTransformer(hub="", path=str(pickled)),
    ):
        with pytest.raises(ConfigError, match=r"old: its weights are there as \.bin files alone") as error:
            component.check()
        assert "\n" not in str(error.value)
        assert ".allow_bin=true" in str(error.value), component


def test_allowed_they_are_read_as_numbers(pickled: Path, small_model: Path, tmp_path: Path) -> None:
    pool, common = pool_of(*MIXED), {"dtype": "float32", "device": "cpu"}
    old = Perplexity(hub="", path=str(pickled), allow_bin=True, **common)  # type: ignore[arg-type]
    old.check()
    for name in ("old-scores", "new-scores"):
        (tmp_path / name).mkdir()
    expected = Perplexity(hub="", path=str(small_model), **common).score(pool, tmp_path / "new-scores")  # type: ignore[arg-type]
    np.testing.assert_array_equal(old.score(pool, tmp_path / "old-scores"), expected)
    spec = CausalLM(hub="", path=str(pickled), allow_bin=True, dtype="float32")
    spec.check()
    assert spec.load(spec.load_tokenizer()).config.hidden_size == 64
    for embedder in (CausalLMEmbedder, SentenceTransformer):
        bins, safe = (embedder(hub="", path=str(p), allow_bin=p == pickled, **common) for p in (pickled, small_model))
        bins.check()
        np.testing.assert_array_equal(bins.encode(["a text"]), safe.encode(["a text"]))


def test_code_in_them_does_not_run(pickled: Path, tmp_path: Path) -> None:
    """What a malicious file would do: here it would leave a file behind."""
    import pickle

    import torch

    trace = tmp_path / "it-ran"

    class Malicious:
        def __reduce__(self) -> Any:
            return Path.touch, (trace,)

    torch.save({"x": Malicious()}, pickled / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError):
        CausalLM(hub="", path=str(pickled), allow_bin=True).load(SimpleNamespace(pad_token_id=0))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        (["config.json", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"], True),
        (["pytorch_model.bin", "model.safetensors"], False),
        (["pytorch_model.bin.index.json", "model.safetensors.index.json"], False),
        (["config.json"], False),  # loading says what is missing
        (None, False),  # offline, gated, renamed
    ],
)
def test_the_hub_is_asked_for_the_names(
    files: list[str] | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def model_info(self: Any, hub: str, *, revision: str | None, timeout: float) -> Any:
        asked.append((hub, revision))
        if files is None:
            raise OSError("no network")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    weights._files_of_hub.cache_clear()
    try:
        arguments: dict[str, Any] = {"hub": "some/model", "path": None, "revision": None, "option": "scorer"}
        if refused:
            with pytest.raises(ConfigError, match=r"scorer\.hub=some/model, revision main.*refs/pr/N.*allow_bin"):
                need_weights(**arguments, allow_bin=False)
        else:
            need_weights(**arguments, allow_bin=False)
        need_weights(**arguments, allow_bin=True)
        assert asked == [("some/model", None)]
    finally:
        weights._files_of_hub.cache_clear()
