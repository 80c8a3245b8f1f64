"""What metrics are counted in, by what the harness calls them; an average is of one unit."""

from __future__ import annotations

import pytest

from dsel.evaluator.base import Metric, average
from dsel.evaluator.harness import Harness
from dsel.evaluator.units import unit_of


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("acc,none", "share"), ("exact_match,strict-match", "share"), ("pass@10", "share"), ("mcc", "share"),
        ("nats/token", "nats"), ("word_perplexity,none", "perplexity"), ("perplexity,none", "perplexity"),
        ("bits_per_byte,none", "bits a byte"), ("bleu,none", "BLEU"), ("bleu_acc,none", "share"),
        ("rouge1_max,none", "ROUGE"), ("rouge1_acc,none", "share"), ("None", "share"),
    ],
)  # fmt: skip
def test_units_by_name(metric: str, unit: str) -> None:
    assert unit_of(metric) == unit


def test_an_average_is_of_one_unit_and_direction() -> None:
    a, b = Metric(0.2, 0.03, "acc"), Metric(0.6, 0.04, "acc")
    bits = [Metric(v, 0.1, "bits_per_byte", higher_is_better=False, unit="bits a byte") for v in (1.0, 2.0)]
    assert list(Harness().average({"a": a, "b": b})) == ["average", "a", "b"]
    assert list(Harness().average({"a": a, "bits": bits[0]})) == ["a", "bits"]
    mean = average({"x": bits[0], "y": bits[1]})
    assert (mean.value, mean.unit, mean.higher_is_better) == (1.5, "bits a byte", False)
