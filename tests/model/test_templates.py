"""The chat templates that TRL ships, and a few kinds more: what of ten conversations carries loss under each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dsel.model.chat import IGNORED, Refused, dialect_of, encodings, end_tokens, left_out, render, training_texts
from dsel.pool import Message

TOKENS = (
    r"<[|｜][^<>\s|｜'+]+[|｜]>|<(?:start|end)_of_\w+>|<\|?\w+\|>|<\|\w+\|?>"
    r"|</?think>|</s>|\[/?INST\]|\[gMASK\]|<sop>|</?tool_call>"
)
EOS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "diffusion_gemma": "<turn|>",
    "gemma": "<end_of_turn>",
    "gptoss": "<|return|>",
    "lfm": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "muse": "<|eot|>",
    "nemotron": "<|im_end|>",
}  # of the others the end of text, which ends no turn

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}},
    },
}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def user(content: str, **more: Any) -> Message:
    return {"role": "user", "content": content, **more}


def assistant(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def calls(city: str) -> list[dict[str, Any]]:
    return [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}]


RESULT = {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "RESULT1"}
CONVERSATIONS: dict[str, list[Message]] = {
    "single": [user("USER1"), assistant("ANSWER1")],
    "multi": [user("USER1"), assistant("ANSWER1"), user("USER2"), assistant("ANSWER2")],
    "system": [system("SYSTEM1"), user("USER1"), assistant("ANSWER1")],
    "system multi": [system("SYSTEM1"), user("USER1"), assistant("ANSWER1"), user("USER2"), assistant("ANSWER2")],
    "reasoning": [user("USER1"), assistant("ANSWER1", reasoning_content="THOUGHT1")],
    "tags": [user("USER1"), assistant("<think>\nTHOUGHT1\n</think>\n\nANSWER1")],
    "reasoning multi": [
        user("USER1"), assistant("ANSWER1", reasoning_content="THOUGHT1"),
        user("USER2"), assistant("ANSWER2", reasoning_content="THOUGHT2"),
    ],
    "tools": [user("USER1", tools=[WEATHER]), assistant("", tool_calls=calls("CITY1")), RESULT, assistant("ANSWER2")],
    "call": [user("USER1", tools=[WEATHER]), assistant("", tool_calls=calls("CITY1"))],
    "untrained": [user("USER1"), assistant("WRONG", train=False), user("USER2"), assistant("ANSWER2")],
}  # fmt: skip


def shipped() -> dict[str, str]:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def tokenizer_for(
    source: str, eos: str, special: tuple[str, ...] = (), merges: tuple[tuple[str, str], ...] = ()
) -> Any:
    """Bytes, those that `merges` make one, and the tokens that the template writes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=eos, pad_token="<pad>")
    written = sorted({*re.findall(TOKENS, source), *special} - {"<s>", "<pad>", eos})
    tokenizer.add_special_tokens({"extra_special_tokens": written})
    tokenizer.chat_template = source
    return tokenizer


def learnt(tokenizer: Any, messages: list[Message]) -> list[list[str]]:
    """Each run of labelled tokens, of each text."""
    texts = []
    for ids, labels in encodings(tokenizer, messages):
        assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
        runs: list[list[int]] = [[]]
        for label in labels:
            if label != IGNORED:
                runs[-1].append(label)
            elif runs[-1]:
                runs.append([])
        assert all(run[-1] in end_tokens(tokenizer) for run in runs if run), "a response ends with what stops it"
        texts.append([tokenizer.decode(run) for run in runs if run])
    return texts


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {
        name: tokenizer_for(source, next((eos for key, eos in EOS.items() if name.startswith(key)), "<|endoftext|>"))
        for name, source in shipped().items()
    }


@pytest.mark.parametrize("name", shipped())
def test_what_is_learnt_is_the_assistants_and_its_end(name: str, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[name]
    done = 0
    for messages in CONVERSATIONS.values():
        try:
            texts = training_texts(tokenizer, messages)
        except Refused as error:
            assert str(error) and "\n" not in str(error)
            continue
        done += 1
        lost = left_out(messages, [text for text, _ in texts])
        runs = [run for text in learnt(tokenizer, messages) for run in text]
        all_of_it = "".join(runs)
        for word in ("USER", "SYSTEM", "RESULT", "WRONG"):
            assert word not in all_of_it
        for turn in (m for m in messages if m["role"] == "assistant" and m.get("train", True)):
            answer = re.findall("ANSWER.|THOUGHT.", turn["content"])
            reasoning = [] if "reasoning" in lost else re.findall("THOUGHT.", turn.get("reasoning_content", ""))
            called = ["CITY1"] if turn.get("tool_calls") and "a tool call" not in lost else []
            if "a part of a response" in lost:
                answer = answer[-1:]
            for piece in [*answer, *reasoning, *called]:
                assert sum(run.count(piece) for run in runs) == 1
        spoken = sum(
            m["role"] == "assistant" and m.get("train", True) and not (m.get("tool_calls") and "a tool call" in lost)
            for m in messages
        )
        assert len(runs) == spoken
    assert done >= 5


def test_learnt_word_by_word(tokenizers: dict[str, Any]) -> None:
    """Against what the models' own documents say that they write."""

    def of(name: str, conversation: str) -> list[list[str]]:
        return learnt(tokenizers[name], CONVERSATIONS[conversation])

    empty = "<think>\n\n</think>\n\n"
    assert of("qwen3", "multi") == [[f"{empty}ANSWER1<|im_end|>", f"{empty}ANSWER2<|im_end|>"]]
    assert of("qwen3", "reasoning") == [["<think>\nTHOUGHT1\n</think>\n\nANSWER1<|im_end|>"]]
    assert of("qwen3_5_think", "reasoning") == [["THOUGHT1\n</think>\n\nANSWER1<|im_end|>"]]  # the prompt opens it
    assert of("phi3", "multi") == [["ANSWER1<|end|>", "ANSWER2<|end|>"]]
    assert of("gemma", "multi") == [["ANSWER1<end_of_turn>", "ANSWER2<end_of_turn>"]]
    assert of("deepseek_r1_distill", "tags") == [["THOUGHT1\n</think>\n\nANSWER1<｜end▁of▁sentence｜>"]]
    assert of("deepseekv3", "tools")[0][1] == "ANSWER2<｜end▁of▁sentence｜>"
    assert of("llama3_1", "tools") == [
        ['{"name": "weather", "parameters": {"city": "CITY1"}}<|eot_id|>', "ANSWER2<|eot_id|>"]
    ]
    analysis = "<|channel|>analysis<|message|>THOUGHT{0}<|end|><|start|>assistant"
    final = "<|channel|>final<|message|>ANSWER{0}<|return|>"
    assert of("gptoss", "reasoning multi") == [[(analysis + final).format(2)], [(analysis + final).format(1)]]
    assert of("gptoss", "call") == [
        [' to=functions.weather<|channel|>commentary json<|message|>{"city": "CITY1"}<|call|>']
    ]
    assert of("glm4moe", "single") == [["\n<think></think>\nANSWER1<|user|>"]]
    assert of("llama3", "call") == [[]]  # all of the response is left out: silence is not learnt


def test_arguments_in_the_form_that_the_template_reads(tokenizers: dict[str, Any]) -> None:
    text = [user("USER1"), assistant("", tool_calls=calls("CITY1"))]
    text[1]["tool_calls"][0]["function"]["arguments"] = '{"city": "CITY1"}'
    for name in ("qwen2_5", "llama3_1", "deepseekv3", "gptoss", "lfm2_v2", "glm4moe"):
        assert learnt(tokenizers[name], text) == learnt(tokenizers[name], [user("USER1"), *CONVERSATIONS["call"][1:]])
    spelled = tokenizer_for(
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}"
        "{{ eos_token }}{% endfor %}",
        "</s>",
    )
    assert learnt(spelled, CONVERSATIONS["call"]) == [['{"city": "CITY1"}</s>']]


INST = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must\n alternate') }}{% endif %}"
    "{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else ' ' + m.content + ' ' + eos_token }}{% endfor %}"
)
LAST_ONLY = (
    "{% for m in messages %}{{ m.role + ': ' + m.content }}{{ eos_token if loop.last and m.role == 'assistant' "
    "else '\n' }}{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
)
NO_END = (
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
    "{{ '### assistant:\n' if add_generation_prompt }}"
)
CONTENT_MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)
STRIPS = (  # as Qwen3 and DeepSeek, in words that TRL does not know
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('</think>')[-1].lstrip() }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (INST, [[" ANSWER1 <eos>", " ANSWER2 <eos>"]]),
        (LAST_ONLY, [["ANSWER2<eos>"], ["ANSWER1<eos>"]]),
        (NO_END, [["ANSWER1", "ANSWER2<eos>"]]),
        (CONTENT_MARKED, [["ANSWER1<|im_end|>", "ANSWER2<|im_end|>"]]),
    ],
)
def test_other_kinds(source: str, expected: list[list[str]]) -> None:
    tokenizer = tokenizer_for(source, "<eos>")
    texts = []
    for ids, labels in encodings(tokenizer, CONVERSATIONS["multi"]):
        text = tokenizer.decode([token if label != IGNORED else 0 for token, label in zip(ids, labels, strict=True)])
        texts.append([run for run in text.split(tokenizer.decode([0])) if run])
    assert texts == expected


ALWAYS = (  # adds the header of an answer whether it is asked for or not, as early copies of Llama 3 do
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)


@pytest.mark.parametrize(
    "source",
    [
        ALWAYS,
        ALWAYS.replace("<|start_header_id|>", "<|im_start|>").replace("<|end_header_id|>\n", ""),
        ALWAYS.replace("<|start_header_id|>", "").replace("<|end_header_id|>", ":"),
        ALWAYS.replace("<|start_header_id|>{{ m.role }}", "<|{{ m.role }}|>").replace(
            "<|start_header_id|>assistant", "<|assistant|>"
        ),
    ],
)
def test_a_generation_prompt_that_nobody_asked_for_is_not_learnt(source: str) -> None:
    tokenizer = tokenizer_for(source, "<eos>", special=("<|user|>", "<|assistant|>", "<|system|>"))
    assert tokenizer.convert_ids_to_tokens(end_tokens(tokenizer)) == ["<eos>", "<|eot_id|>"]
    assert learnt(tokenizer, CONVERSATIONS["multi"]) == [["ANSWER1<|eot_id|>", "ANSWER2<|eot_id|>"]]
    assert render(tokenizer, CONVERSATIONS["single"]).endswith("ANSWER1<|eot_id|>")
    assert (
        render(tokenizer, CONVERSATIONS["single"][:1], generation_prompt=True)
        .rstrip()
        .endswith(("assistant", "assistant:", "|>"))
    )


@pytest.mark.parametrize("prefix", [False, True])
def test_a_response_begins_with_a_token_of_its_own(prefix: bool) -> None:
    """Behind a prompt that ends in a space, where the whole text has a token of that space and the first letter."""
    from tokenizers import normalizers

    tokenizer = tokenizer_for(LAST_ONLY, "<eos>", merges=(("Ġ", "A"),))
    if prefix:  # a tokenizer that puts a space before whatever it reads
        tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    (ids, labels), _ = encodings(tokenizer, CONVERSATIONS["multi"])
    told = tokenizer.decode([label for label in labels if label != IGNORED])
    assert told == (" ANSWER2<eos>" if prefix else "ANSWER2<eos>")
    if not prefix:
        prompt = render(tokenizer, CONVERSATIONS["multi"][:-1], generation_prompt=True)
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert ids[: len(asked)] == asked


def test_reasoning_that_history_forgets_is_learnt_where_it_is_written() -> None:
    tokenizer = tokenizer_for(STRIPS, "<eos>")
    messages = [
        user("USER1"),
        assistant("<think>T1</think>ANSWER1"),
        user("USER2"),
        assistant("<think>T2</think>ANSWER2"),
    ]
    assert learnt(tokenizer, messages) == [
        ["<think>T2</think>ANSWER2<|im_end|>"], ["<think>T1</think>ANSWER1<|im_end|>"],
    ]  # fmt: skip
    (whole, _), (alone, _) = training_texts(tokenizer, messages)
    assert "T1" not in whole
    assert alone == render(tokenizer, messages[:2]).rstrip()  # as the model reads and writes it then


def test_a_token_that_ends_a_turn_is_found_whatever_the_eos_token() -> None:
    for eos in ("<|im_end|>", "<|endoftext|>", "<pad>"):
        tokenizer = tokenizer_for(STRIPS, eos, special=("<|endoftext|>",))
        assert dialect_of(tokenizer, []).end == "<|im_end|>"
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") in end_tokens(tokenizer)
        assert learnt(tokenizer, CONVERSATIONS["single"]) == [["ANSWER1<|im_end|>"]]


def test_an_end_of_turn_inside_a_response_does_not_end_it() -> None:
    tokenizer = tokenizer_for(STRIPS, "<|im_end|>")
    (run,) = learnt(tokenizer, [user("USER1"), assistant("it writes <|im_end|> here\n")])[0]
    assert run == "it writes <|im_end|> here\n<|im_end|>"


def test_a_refusal_is_one_line() -> None:
    tokenizer = tokenizer_for(INST, "</s>")
    with pytest.raises(Refused, match="^roles must alternate$"):
        encodings(tokenizer, CONVERSATIONS["system"])
    with pytest.raises(Refused, match="^roles must alternate$"):
        render(tokenizer, CONVERSATIONS["system"])
