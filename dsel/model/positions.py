"""How long a text a model was made for."""

from __future__ import annotations

from typing import Any


def positions(model: Any) -> int | None:
    """The tokens of a text that `model` has positions for: embedded ones, or those it was trained with.

    None for a model without such a limit. RoBERTa and its kin count positions from behind their padding index.
    """
    config = getattr(model, "config", None)
    if config is None:
        return None
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        if table is not None and padding is not None:
            most = table.num_embeddings - padding - 1
    return most if isinstance(most, int) and most > 0 else None


def within(max_length: int, model: Any) -> int:
    """`max_length`, or the positions of `model` where it has fewer."""
    return min(max_length, positions(model) or max_length)
