"""A model's own answers: in batches that fit into memory, each row computed hardly longer than its answer is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import numpy as np

from dsel.model import flops
from dsel.model.chat import end_tokens
from dsel.model.fast_linear import fast_linear
from dsel.model.likelihood import in_batches
from dsel.progress import progress

log = logging.getLogger(__name__)

FIRST_STAGE, GROWTH = 32, 4  # new tokens after which unfinished answers are gathered: 32, 128, 512 …


def generate(model: Any, tokenizer: Any, texts: Sequence[str], **options: Any) -> list[str]:
    """The answer to each rendered prompt, with a progress bar; `options` as of `batches_of_answers`."""
    answers = [""] * len(texts)
    with progress("generating", total=len(texts), unit="answers") as advance:
        for rows, found in batches_of_answers(model, tokenizer, texts, **options):
            for i, answer in zip(rows, found, strict=True):
                answers[i] = answer
            advance(len(rows))
    return answers


def batches_of_answers(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 512,
    max_prompt: int = 2048,
    tokens_a_batch: int = 32768,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[tuple[list[int], list[str]]]:
    """(indices of `texts`, their answers) as they are found, every index once, so that they can be saved on the way.

    texts: prompts as `dsel.model.chat.render` gives them with `generation_prompt`. Of longer ones than `max_prompt`
    tokens the end is kept, as it asks for the answer. An answer is what comes before the end of turn, or
    `max_new_tokens` tokens, without special tokens and surrounding space. tokens_a_batch: prompt and new tokens with
    padding, of a batch; halved when memory runs out (`ConfigError` when a single prompt is too much).

    Greedy at temperature 0; equal prompts are then answered once. Above, tokens are drawn from the nucleus of mass
    `top_p`: the same call gives the same answers and leaves torch's generators as they were, but an answer depends on
    the batch it is found in, so other texts or limits beside it change it.

    Rows of a batch that have ended are still computed until all have, so batches stop after 32 new tokens, and what
    has not ended by then goes on in new, full batches, up to 128, and so on. Reading an answer's beginning again
    costs little beside that.
    """
    import torch

    prompts = prompt_ids(tokenizer, texts, max_prompt)
    askers: dict[Any, list[int]] = {}
    for i, ids in enumerate(prompts):
        askers.setdefault(i if temperature else tuple(ids), []).append(i)
    groups = list(askers.values())
    so_far = [prompts[group[0]] for group in groups]  # each prompt with its answer as it grows
    ends = end_tokens(tokenizer, model.generation_config.eos_token_id)
    running, before, limit = list(range(len(groups))), 0, min(FIRST_STAGE, max_new_tokens)

    def more(rows: list[int]) -> list[list[int]]:
        batch = tokenizer.pad({"input_ids": [so_far[running[row]] for row in rows]}, padding_side="left")
        ids, mask = (torch.tensor(batch[name], device=model.device) for name in ("input_ids", "attention_mask"))
        settings = _settings(limit - before, ends, tokenizer.pad_token_id, temperature, top_p)
        with torch.inference_mode(), seeded([seed, limit, running[rows[0]]], model.device):
            out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        news: list[list[int]] = out[:, ids.shape[1] :].tolist()
        flops.read(model, int(mask.sum()) + sum(_until(new, ends) for new in news))
        return news

    with fast_linear(model):
        while running:
            unfinished: list[int] = []
            for rows, news in in_batches(more, [len(so_far[i]) + limit - before for i in running], tokens_a_batch):
                found: dict[int, str] = {}
                for i, new in zip([running[row] for row in rows], news, strict=True):
                    so_far[i] = so_far[i] + new
                    if limit < max_new_tokens and not set(ends) & set(new):
                        unfinished.append(i)
                    else:
                        answer = so_far[i][len(prompts[groups[i][0]]) :]
                        found |= dict.fromkeys(groups[i], text_of_answer(tokenizer, answer, ends))
                if found:
                    yield list(found), list(found.values())
            running, before, limit = unfinished, limit, min(limit * GROWTH, max_new_tokens)


def prompt_ids(tokenizer: Any, texts: Sequence[str], max_prompt: int) -> list[list[int]]:
    """The last `max_prompt` token ids of each rendered prompt, which brings its own special tokens."""
    whole = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if cut := sum(len(ids) > max_prompt for ids in whole):
        log.warning("%d of %d prompts are longer than %d tokens: only their ends are read", cut, len(whole), max_prompt)
    return [ids[-max_prompt:] for ids in whole]


@contextmanager
def seeded(entropy: Sequence[int], device: Any) -> Iterator[None]:
    """Inside, torch draws from `entropy`; afterwards it goes on as if nothing had been drawn."""
    import torch

    with torch.random.fork_rng(range(torch.cuda.device_count()) if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        yield


def _until(tokens: Sequence[int], ends: Sequence[int]) -> int:
    """How many tokens there are up to the first that ends."""
    return next((i for i, token in enumerate(tokens, 1) if token in ends), len(tokens))


def text_of_answer(tokenizer: Any, answer: Sequence[int], ends: Sequence[int]) -> str:
    """The words of an answer, up to its first end token."""
    kept = list(takewhile(lambda token: token not in ends, answer))
    return tokenizer.decode(kept, skip_special_tokens=True).strip()


def _settings(new_tokens: int, ends: list[int], pad: int | None, temperature: float, top_p: float) -> Any:
    """What decides the next token, all of it: what is left out here the model's own configuration would fill in."""
    from transformers import GenerationConfig

    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=new_tokens,
        eos_token_id=ends,
        pad_token_id=ends[0] if pad is None else pad,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        **(sampling if temperature else {"do_sample": False}),
    )
