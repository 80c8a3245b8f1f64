"""How many floating-point operations a model's tokens take, from how many parameters each passes through.

Reading: 2 N for each token, a multiplication and an addition a parameter (Kaplan et al. 2020, §2.1). Training: the way
back takes 2 N for the gradients of what a layer was given and 2 for those of each trained parameter, 6 N in all where
all are (Hoffmann et al. 2022, §3), and with adapters of L parameters 4 N + 6 L; layers that are computed again on the
way back (gradient checkpointing) add as much as reading. Left out is what attention multiplies tokens with tokens,
which for long texts and small models is not little (tests/bench/bench_cost.py): it is left out of both.
"""

from __future__ import annotations

import logging
from typing import Any

from dsel.model.causal_lm import CausalLM
from dsel.spent import spend

log = logging.getLogger(__name__)

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # what models call how many they have


def passed(model: Any) -> tuple[float, float]:
    """The parameters that a token passes through: those that are not trained, and those that are.

    The tables that a token is looked up in are none of them, the head is, be it the same table. Of experts count as
    many as a token is sent to.
    """
    import torch

    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is not None:
        tables.discard(id(head.weight))
    share = _share_of_experts(getattr(model, "config", None))
    counts = [0.0, 0.0]
    for name, parameter in model.named_parameters():
        if id(parameter) not in tables:
            counts[parameter.requires_grad] += size(parameter) * (share if ".experts." in name else 1.0)
    return counts[0], counts[1]


def size(parameter: Any) -> int:
    """The numbers of a parameter, also of one that is held in 4 bits or of which this process has a piece."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(state.shape.numel())
    return int(getattr(parameter, "ds_numel", 0) or parameter.numel())


def _share_of_experts(config: Any) -> float:
    """The share of a model's experts that a token is sent to."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    there = next((found for name in EXPERTS if (found := getattr(text, name, None))), None)
    chosen = getattr(text, "num_experts_per_tok", None)
    return min(1.0, chosen / there) if there and chosen else 1.0


def reading(model: Any, tokens: int) -> float:
    """Operations of a model that reads, or writes, so many tokens."""
    return 2.0 * sum(passed(model)) * tokens


def training(model: Any, tokens: int, *, again: bool = False) -> float:
    """Operations of a pass forward and back over so many tokens; again: with layers that are computed twice."""
    return forward_and_back(*passed(model), tokens, again=again)


def forward_and_back(frozen: float, trained: float, tokens: float, *, again: bool = False) -> float:
    """The same of a model whose tokens pass through so many parameters of each kind."""
    return tokens * (4.0 * frozen + 6.0 * trained + again * 2.0 * (frozen + trained))


def unweighted(model: CausalLM) -> Any:
    """The modules of a model that something else has loaded, without weights; None where its code refuses that."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            config = model.pretrained(AutoConfig, local_files_only=True)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # nobody's answers are to be lost for their count
        log.info("%s: its operations are not counted (%s)", model.place, error)
        return None


def read(model: Any, tokens: int) -> None:
    """Say that the model has read, or written, so many tokens."""
    spend(reading(model, tokens), tokens)
