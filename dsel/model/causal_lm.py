"""Causal language models from the hub or a local folder, loaded for training and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dsel.cache import Cache
from dsel.component import digest, knob
from dsel.constraints import Count, Dtype, NotEmpty, Text, like
from dsel.distributed import device_of_process
from dsel.errors import need, need_package
from dsel.hub import loads
from dsel.model.chat import end_tokens, template
from dsel.model.hosted import Hosted
from dsel.model.vllm_here import available, need_vllm
from dsel.progress import progress

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")


@dataclass
class CausalLM(Hosted):
    """A model by its hub id, or from a local folder (`path`).

    dtype: of the weights; `auto` is bfloat16 where the hardware has it, else float32. attention: transformers'
    `attn_implementation`. chat_template: instead of the tokenizer's own, the name of a file in `dsel/model/templates`
    or a path; null is its own, or `turns` where it has none. pad_token: an existing token, so that no vocabulary is
    ever resized. lora_targets: the modules LoRA adapts. vllm: whether its answers are vLLM's (`dsel.model.vllm`), with
    an engine of so many GPUs (`tensor_parallel`). What else is loaded, and how: see `Hosted`.
    """

    hub: str
    path: Text | None = None
    revision: Text | None = None
    dtype: Dtype = "auto"
    attention: str = "sdpa"
    chat_template: Text | None = None
    pad_token: Text | None = None
    lora_targets: Text | Annotated[Sequence[Text], NotEmpty()] = "all-linear"
    trust_remote_code: bool = False
    allow_bin: bool = knob(False)
    vllm: Literal["auto", "always", "never"] = knob("auto")
    tensor_parallel: Count = knob(1)

    def check(self) -> None:
        known = self.attention in ATTENTION or "/" in self.attention  # a kernel of the hub
        wanted = f"wants one of {', '.join(ATTENTION)}, or a kernel of the hub{like(self.attention, ATTENTION)}"
        need(known, f"model.attention={self.attention}: {wanted}")
        self.need_files("model")
        if self.attention.startswith("flash_attention"):
            need_package("flash_attn", install="flash-attn", why=f"model.attention={self.attention}")
        if self.vllm == "always" or (self.vllm == "auto" and available(cpu=False)):
            need_vllm(f"model.vllm={self.vllm}", self.tensor_parallel)
        if self.chat_template is not None:
            template(self.chat_template, option="model.chat_template")

    def extra_identity(self) -> dict[str, Any]:
        if self.chat_template is None:
            return super().extra_identity()
        text = template(self.chat_template, option="model.chat_template")
        return {**super().extra_identity(), "chat_template": digest(text)}

    def prepare(self, cache: Cache) -> bool:
        """Make sure the weights can be loaded, and say whether they were there (a model built here builds itself)."""
        return True

    @loads("model")
    def load_tokenizer(self) -> Any:
        """The tokenizer, with a chat template and a padding token."""
        from transformers import AutoTokenizer

        tokenizer = self.pretrained(AutoTokenizer)
        need(
            tokenizer.is_fast,
            f"{self.place}: its tokenizer does not say where in a text its tokens are, which labels need (transformers "
            "has no fast form of it); choose a model with a tokenizer.json",
        )
        if self.chat_template is not None or tokenizer.chat_template is None:
            if self.chat_template is None:
                log.info("the tokenizer of %s has no chat template: model.chat_template=turns is used", self.place)
            tokenizer.chat_template = template(self.chat_template or "turns", option="model.chat_template")
        if self.pad_token is not None:
            need(
                self.pad_token in tokenizer.get_vocab(),
                f"model.pad_token={self.pad_token}: not in the vocabulary, and vocabularies are never resized",
            )
            tokenizer.pad_token = self.pad_token
        elif tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        return tokenizer

    @loads("model")
    def load(self, tokenizer: Any, *, dtype: str | None = None, quantization: Any = None, sharded: bool = False) -> Any:
        """The model on this process's device, in `dtype` (default: the configured one).

        sharded: it is to be cut into pieces for several processes, so that what trains it says where they go.

        Its generation configuration stops at all of `end_tokens`, whoever generates with it, also once it is saved.
        """
        from transformers import AutoModelForCausalLM

        with progress("loading the model", total=None, unit=""):
            model = self.weights(
                AutoModelForCausalLM,
                None if sharded else device_of_process(),
                dtype=torch_dtype(dtype or self.dtype),
                attn_implementation=self.attention,
                quantization_config=quantization,
            )
        model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
        if getattr(tokenizer, "chat_template", None):
            model.generation_config.eos_token_id = end_tokens(tokenizer, model.generation_config.eos_token_id) or None
        return model


def has_bfloat16() -> bool:
    """Whether the hardware computes in bfloat16 (rather than emulating it)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def torch_dtype(name: str) -> torch.dtype:
    """The dtype `name` stands for here: `auto` is bfloat16 where the hardware has it, else float32."""
    import torch

    if name == "auto":
        return torch.bfloat16 if has_bfloat16() else torch.float32
    return getattr(torch, name)
