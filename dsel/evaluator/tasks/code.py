"""What `humaneval_pass10` and `humaneval_pass1` call: joining prompt and completion, and running the tests."""

from __future__ import annotations

from typing import Any

from dsel.evaluator.sandbox import CodeEval


def complete_programs(responses: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """Each sampled completion behind its prompt: a whole program."""
    return [[doc["prompt"] + r for r in samples] for samples, doc in zip(responses, docs, strict=True)]


def pass_at_1(references: list[str], predictions: list[list[str]]) -> float:
    """Estimate of the chance that one sample passes: the share of samples that do."""
    return _pass_at(1, references, predictions)


def pass_at_10(references: list[str], predictions: list[list[str]]) -> float:
    """Unbiased estimate of the chance that one of 10 samples passes (Chen et al. 2021, Eq. 1)."""
    return _pass_at(10, references, predictions)


def _pass_at(k: int, references: list[str], predictions: list[list[str]]) -> float:
    scores, _ = CodeEval().compute(references=references, predictions=predictions, k=[k])
    return float(scores[f"pass@{k}"])
