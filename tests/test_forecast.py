"""What pools of other sizes would take: by measurements or a model's weights, and shared where it can be."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dsel import forecast as forecasting
from dsel.cache import Cache
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.embedder.causal_lm import CausalLMEmbedder
from dsel.embedder.hashing import Hashing
from dsel.forecast import Device, Forecast, Pace, Part, duration, forecast, reading, table, weights_of, width
from dsel.model.causal_lm import CausalLM
from dsel.peaks import PEAKS, SHARE, Peak
from dsel.scorer.ifd import IFD
from dsel.scorer.length import Length
from dsel.show import show_table
from tests.bench.bench_forecast import page
from tests.conftest import ROOT
from tests.selector.test_iterative import experiment

H100 = Device("H100", PEAKS["H100"], there=False)


def nothing(stage: str) -> Pace | None:
    return None


def tokens(most: int) -> float:
    return min(100, most)


@pytest.fixture
def embedder(spec: CausalLM) -> CausalLMEmbedder:
    return CausalLMEmbedder(hub="", path=spec.path, max_length=64)


def test_weights_are_those_of_products(embedder: CausalLMEmbedder) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(embedder.path)
    looked_up = model.get_input_embeddings().weight.numel()
    assert weights_of(embedder) == sum(p.numel() for p in model.parameters()) - looked_up
    assert width(embedder) == 64


def test_a_reader_goes_by_its_weights_where_nothing_is_measured(embedder: CausalLMEmbedder) -> None:
    weights = weights_of(embedder)
    assert weights is not None
    expected = 2 * weights * 64 / (SHARE * PEAKS["H100"].bfloat16)
    found = reading(embedder, H100, None, tokens)
    assert found is not None and found.seconds == pytest.approx(expected)
    assert "64 tokens" in found.how
    twice = reading(IFD(hub="", path=embedder.path, max_length=64), H100, None, tokens)
    assert twice is not None and twice.seconds == pytest.approx(2 * expected)


def test_what_a_cpu_measured_of_a_model_is_not_what_gpus_do(embedder: CausalLMEmbedder) -> None:
    measured = Pace(1.0, "3 measured")
    here = Device("H100", PEAKS["H100"], there=True)
    assert reading(embedder, here, measured, tokens) == measured
    assert reading(embedder, H100, measured, tokens) != measured
    assert reading(Hashing(), H100, measured, tokens) == measured  # which no GPU changes
    assert reading(Length(), H100, None, tokens) is None


def test_a_model_that_cannot_be_had_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forecasting, "files", lambda model: (None, "no network"))
    assert reading(CausalLMEmbedder(hub="a/b"), H100, None, tokens) is None
    assert "the size of a/b is not known: no network" in caplog.text


@pytest.fixture
def made(spec: CausalLM, cache: Cache, embedder: CausalLMEmbedder) -> Callable[..., Forecast]:
    def make(*overrides: str, measured: Callable[[str], Pace | None] = nothing, **parts: Any) -> Forecast:
        whole = experiment(spec, cache, "selector=kmq", "budget=0.1", *overrides)
        whole.embedder = embedder
        for name, part in parts.items():
            setattr(whole, name, part)
        return forecast(whole, whole.problem().study, [10**7, 10**8], H100, measured, tokens)

    return make


def test_maps_are_shared_and_kernels_are_one_devices(made: Callable[..., Forecast], embedder: CausalLMEmbedder) -> None:
    found = made(
        measured=lambda stage: Pace(1e-3, "2 measured") if stage == "score" else None,
        clusterer=FaissKMeans(k=4, backend="exact"),
    )
    embeddings, quality, clustering, selection = found.parts
    assert [part.name for part in found.parts] == ["embeddings", "quality", "clustering", "selection"]
    seconds = 1e7 * reading(embedder, H100, None, tokens).seconds  # type: ignore[union-attr]
    assert [embeddings.on(0, 1), embeddings.on(1, 8)] == pytest.approx([seconds, 10 * seconds / 8])
    assert (quality.seconds, quality.how) == ([1e4, 1e5], "2 measured")  # scorer=column has no model
    assert clustering.on(0, 64) == clustering.on(0, 1) and "one GPU" in clustering.how
    expected = FaissKMeans(k=4, backend="exact").cost(10**7, 64).operations / (SHARE * PEAKS["H100"].float32)
    assert clustering.seconds[0] == pytest.approx(expected)
    assert selection.seconds[0] == 0
    assert found.stored == [4 * 64e7, 4 * 64e8]
    assert made(clusterer=FaissKMeans(k=4, backend="faiss")).parts[2].shared


def test_the_clusters_that_a_method_makes_itself_count(made: Callable[..., Forecast]) -> None:
    (embeddings, clustering, _) = made("selector=kmeans_centroids", clusterer=FaissKMeans(backend="exact")).parts
    expected = FaissKMeans(k=10**6, backend="exact").cost(10**7, 64).operations / (SHARE * PEAKS["H100"].float32)
    assert clustering.seconds[0] == pytest.approx(expected)


def test_a_forecast_as_it_is_shown() -> None:
    device = Device("H", Peak(1e15, 1e14), there=False)
    parts = [Part("embeddings", "so", [7200.0], shared=True), Part("selection", "thus", [36.0], shared=False)]
    text = shown(Forecast(device, [10**7], parts, [2e9], [5e8]))
    assert "pools of other sizes, on so many × H (there is none here)" in text and "30% of the peak" in text
    assert re.search(r"10M, 1 .* 10M, 8 .* 10M, 64", text)
    assert re.search(r"embeddings.* 2.0 h .* 15.0 min .* 112.5 s .* so", text)
    assert re.search(r"selection.* 36.0 s .* 36.0 s .* 36.0 s .* thus", text)
    assert re.search(r"GPU hours.* 2.01 .* 2.08 .* 2.64 ", text)
    assert re.search(r"vectors.* 2 GB", text) and re.search(r"memory.* 0.5 GB", text)
    unknown = [*parts, Part("quality", "not measured yet", [None], shared=True)]
    text = shown(Forecast(device, [10**7], unknown, [2e9], [5e8]))
    assert re.search(r"quality.* \? .* \? .* \? ", text) and re.search(r"all.*≥ 2.0 h", text)


def shown(found: Forecast) -> str:
    out = io.StringIO()
    show_table(table(found), Console(file=out, width=200))
    return out.getvalue()


def test_durations_have_the_unit_that_suits() -> None:
    assert [duration(s) for s in (0, 119, 120, 7200, 360_000)] == ["0.0 s", "119.0 s", "2.0 min", "2.0 h", "100.0 h"]


def test_the_page_has_what_the_code_computes() -> None:
    assert page() in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
