"""What the figures of an evaluation are counted in."""

from __future__ import annotations

import re

SHARE = "share"
"""Of one: tables show such figures in per cent, their differences in points. Other units are shown as they are."""

UNITS = {  # what lm-evaluation-harness, and our records, call a metric → its unit
    r"nats/token": "nats",
    r"(word_|byte_)?perplexity": "perplexity",
    r"bits_per_byte": "bits a byte",
    r"bleu(_max|_diff)?": "BLEU",
    r"chrf": "chrF",
    r"ter": "TER",
    r"rouge\w+_(max|diff)": "ROUGE",
    r"eqbench": "points of 100",
}


def unit_of(metric: str) -> str:
    """The unit of a metric by its name, such as `acc,none`: `SHARE` unless it is known to be another."""
    name = metric.partition(",")[0]
    return next((unit for pattern, unit in UNITS.items() if re.fullmatch(pattern, name)), SHARE)
