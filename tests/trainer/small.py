"""The settings of trainings that are over in a moment."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "micro_batch_size": 8,
    "warmup": 0,
    "max_length": 128,
    "gradient_checkpointing": False,
}
