"""From what a column holds to turns: lists of messages, of strings, of pairs, and single questions and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dsel.data.calls import call_of, calls_in
from dsel.data.reading import BadRow, Reading, Row, as_text, bare, is_nothing, kind_of, parsed, printable, unpacked
from dsel.data.roles import CALLS, KNOWN, ROLES, folded, known_role, role_of
from dsel.data.unread import carries_text, says_of_loss
from dsel.pool import Message

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
TEXT_KEYS = ("content", "value", "text", "message", "utterance", "parts")
LOSS_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "train_on_turn", "loss", "loss_mask")
REASONING = ("reasoning_content", "reasoning", "thinking")
SYSTEM = ("system", "system_prompt", "system_message", "systemInstruction")
GIVEN = ("input", "context", "passage")
MEDIA = ("image", "images", "image_path", "image_url", "audio", "audios", "video", "videos")

PROMPTS = (
    "instruction",
    "prompt",
    "question",
    "query",
    "problem",
    "inputs_pretokenized",
    "inputs",
    "user",
    "human",
    "input",
)
"""What the column (or key) of a question is called, in order of precedence; `ANSWERS` that of its answer."""

ANSWERS = (
    "output",
    "completion",
    "response",
    "solution",
    "answer",
    "targets_pretokenized",
    "targets",
    "target",
    "answers",
    "assistant",
    "bot",
    "chosen",
    "preferred_output",
)


def turns_of(value: Any, name: str, reading: Reading, *, strings: bool = True) -> list[Message]:
    """The turns in a column called `name`: a list of messages, of pairs, or (with `strings`) of texts in turn.

    JSON text that holds such a list is read, a single message is a list of one, and {role: […], content: […]}, which is
    how some libraries store a list of messages, is that list.
    """
    value = unpacked(value, name, reading)
    if is_nothing(value):
        return []
    if isinstance(value, Mapping):
        value = _list_of(value, reading)
    if not isinstance(value, (list, tuple)):
        raise BadRow(f"`{name}` is {kind_of(value)}, not a list of turns")
    if all(isinstance(item, str) for item in value):
        return _alternating(value, name, reading, strings)
    return [message for item in value for message in _turns(item, name, reading)]


def pair(row: Row, ask: str, answer: str, reading: Reading) -> list[Message]:
    """The turns of a row (or of a map in a list) that has a question and an answer, and what goes with them.

    `system` comes first, then the pairs of `history`. What is given beside the question (`input`, `context`) is
    appended as "\\nInput: " + input, which is how the released code of Jia et al. 2024 joins the two.
    """
    answered = side(reading.take(row, answer), answer, "assistant", reading)
    if any(m["role"] == "user" for m in answered):  # a conversation of its own, which repeats the question
        return with_system(row, answered, reading)
    asked = side(reading.take(row, ask), ask, "user", reading)
    if [m["role"] for m in asked] == ["user"]:
        columns = [c for c in GIVEN if c != ask and (c == "input" or not isinstance(row.get(c), Mapping))]
        given = "\n".join(text for c in columns if (text := _beside(row, c, reading)).strip())
        prompt = asked[0]["content"]
        asked[0]["content"] = f"{prompt}\nInput: {given}" if prompt and given else prompt or given
    if len(answered) == 1 and "reasoning_content" not in answered[0]:
        name, thought = reading.first(row, REASONING, str)
        answered[0].update({"reasoning_content": thought} if name else {})
    return with_system(row, [*_history(row, reading), *asked, *answered], reading)


def with_system(row: Row, messages: list[Message], reading: Reading) -> list[Message]:
    """`messages` after the row's system prompt, unless they begin with a system turn of their own."""
    name, value = reading.first(row, SYSTEM)
    if not name:
        return messages
    system = _content(value, name, {"role": "system", "content": ""}, reading)[-1]
    if not messages or messages[0]["role"] != "system" or not messages[0]["content"].strip():
        return [system, *messages]
    if messages[0]["content"].strip() != system["content"].strip():
        reading.repairs[f"conversations whose own system turn was read instead of the column `{name}`"] += 1
    return messages


def transcript(row: Row, reading: Reading) -> list[Message]:
    """Preference pairs without a prompt: `chosen` as turns, or as one text in the form of hh-rlhf."""
    chosen = reading.take(row, "chosen")
    if not isinstance(chosen, str) or chosen.lstrip()[:1] == "[":
        return with_system(row, turns_of(chosen, "chosen", reading), reading)
    before, *pieces = re.split(r"(?:^|\n\n)(Human|Assistant):[ \n]?", chosen)
    if before.strip() or not pieces:
        raise BadRow("`chosen` is an answer without its question", "data.columns={prompt: …} names the question")
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return with_system(row, [{"role": ROLES[name.lower()], "content": text.strip()} for name, text in turns], reading)


def has_turns(value: Any) -> bool:
    """Whether a value can be turns: a list or map of them, or text that may hold such a list."""
    if isinstance(value, str):
        return value.lstrip()[:1] in ("[", "{")
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, (list, tuple)) and all(isinstance(v, (str, list, tuple, Mapping)) for v in value)


def is_side(value: Any) -> bool:
    """Whether a value is a question or an answer beyond doubt: text, parts or messages; a number might be a score."""
    return isinstance(value, str) or _speaks(value) or (isinstance(value, (list, Mapping)) and _is_parts(value))


def _list_of(value: Mapping[str, Any], reading: Reading) -> Any:
    """The list that a map stands for: {messages: […], tools: […]}, a map of lists of one length, or a single turn."""
    if "messages" in value:
        tools = value.get("tools")
        reading.tools += tools if isinstance(tools, list) else []
        return value["messages"]
    columns = {k: v for k, v in value.items() if v is not None}
    if all(isinstance(v, list) for v in columns.values()) and len({len(v) for v in columns.values()}) == 1:
        return [dict(zip(columns, items, strict=True)) for items in zip(*columns.values(), strict=True)]
    return [value]


def _alternating(texts: Sequence[str], name: str, reading: Reading, allowed: bool) -> list[Message]:
    """Texts without roles (LIMA, UltraChat): the user begins, and each answers the other."""
    if all(text.lstrip().startswith("{") for text in texts):  # each turn as JSON text
        turns = [parsed(text) for text in texts]
        if all(isinstance(turn, dict) and _speaks(turn) for turn in turns):
            reading.repairs[f"turns of `{name}` read out of text"] += len(turns)
            return [message for turn in turns for message in _turns(turn, name, reading)]
    if not allowed:
        raise BadRow(
            f"`{name}` is a list of strings, and who speaks is not said",
            f"data.columns={{conversations: {name}}} reads them as user and assistant in turn",
        )
    reading.repairs[f"conversations of `{name}` without roles, read as user and assistant in turn"] += 1
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def _turns(item: Any, name: str, reading: Reading) -> list[Message]:
    """The messages of one element of a list of turns."""
    if isinstance(item, (list, tuple)) and len(item) == 2 and not any(isinstance(v, (list, Mapping)) for v in item):
        two = zip(("user", "assistant"), item, strict=True)
        return [{"role": role, "content": as_text(text, name, reading)} for role, text in two]
    if isinstance(item, Mapping):
        if _speaks(item):
            return _turn(item, reading)
        if found := _pair_in(item, reading):
            return found
        keys = ", ".join(sorted(printable(k)[:20] for k in item)[:5]) or "none"
        raise BadRow(f"a turn without a role and a text: its keys are {keys}")
    raise BadRow(f"a turn without a role and a text: it is {kind_of(item)}")


def _pair_in(item: Mapping[str, Any], reading: Reading) -> list[Message]:
    """The turns of {input, output} and its like, or of {role: text}; none where it is neither."""
    ask = next((k for k in PROMPTS if k in item), None)
    answer = next((k for k in ANSWERS if k in item), None)
    inner = Reading(reading.roles, repairs=reading.repairs, tools=reading.tools)
    if ask and answer:
        messages = pair(item, ask, answer, inner)
    else:
        said = [(role, k) for k in item if isinstance(item[k], str) and (role := known_role(k, reading.roles))]
        said.sort(key=lambda turn: KNOWN.index(turn[0]))
        messages = [{"role": role, "content": inner.take(item, key)} for role, key in said]
    _note_unread(item, inner.read, reading)
    return messages


def _speaks(value: Any) -> bool:
    """Whether a value is a turn with a role, a list of such turns, or a map that holds them."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(v, Mapping) and _speaks(v) for v in value)
    if not isinstance(value, Mapping):
        return False
    said = any(k in value for k in (*TEXT_KEYS, *REASONING, "tool_calls", "function_call"))
    return "messages" in value or (said and any(not is_nothing(value.get(k)) for k in ROLE_KEYS))


def _is_parts(value: Any) -> bool:
    """Whether a value is the parts of a content: maps with a type and no role."""
    parts = [value] if isinstance(value, Mapping) else value
    return isinstance(parts, (list, tuple)) and all(_is_part(p) for p in parts)


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and ("type" in part or set(part) == {"text"})


def _are_texts(value: Any) -> bool:
    """Whether a list holds parts, or texts that stand for them."""
    return isinstance(value, (list, tuple)) and all(isinstance(p, str) or _is_parts(p) for p in value)


def _turn(item: Mapping[str, Any], reading: Reading) -> list[Message]:
    """One turn: its text, its reasoning, its calls, and who speaks. Results of tools among its parts come first."""
    read: set[str] = set()

    def first(keys: Sequence[str]) -> tuple[str, Any]:
        name = next((k for k in keys if not is_nothing(item.get(k))), "")
        read.update({name} if name else keys)
        return name, item.get(name)

    speaker = first(ROLE_KEYS)[1]
    message: Message = {"role": role_of(speaker, reading.roles), "content": ""}
    key, value = first(TEXT_KEYS)
    thought, reasoning = first(REASONING)
    if thought:
        message["reasoning_content"] = as_text(reasoning, thought, reading)
    if calls := calls_in(item):
        message["tool_calls"] = calls
    read |= {"tool_calls", "function_call", "tools", *LOSS_KEYS}
    if isinstance(item.get("tools"), list):
        reading.tools += item["tools"]
    for name in ("name", "tool_call_id"):
        if name not in read and not is_nothing(item.get(name)):
            message[name] = as_text(item[name], name, reading)
            read.add(name)
    if message["role"] == "assistant" and _carries_no_loss(item, reading):
        message["train"] = False
    called = folded(speaker) in CALLS and message["role"] == "assistant" and isinstance(value, str)
    if called and (calls := [call for call in map(call_of, _listed(parsed(value))) if call]):
        message["tool_calls"] = calls
        messages = [message]
    else:
        messages = _content(value, key or "content", message, reading)
    _note_unread(item, read, reading)
    return messages


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _content(value: Any, name: str, message: Message, reading: Reading) -> list[Message]:
    """`message` with a content of text or of parts, after the messages that results of tools among the parts are."""
    if isinstance(value, Mapping) and "parts" in value:
        value = value["parts"]
    if isinstance(value, Mapping) and _is_parts(value):
        value = [value]
    if message["role"] == "tool" and isinstance(value, (list, tuple, Mapping)) and not _are_texts(value):
        reading.repairs["results of tools written as JSON"] += 1
        return [{**message, "content": json.dumps(bare(value), ensure_ascii=False)}]
    if not isinstance(value, (list, tuple)):
        return [{**message, "content": as_text(value, name, reading)}]
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Any] = []
    results: list[Message] = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping):
            raise BadRow(f"`{name}` is a list that holds {kind_of(part)}, not parts of text")
        kind = part.get("type")
        if kind in (None, "text", "input_text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("thinking", "reasoning"):
            thought = next((part[k] for k in ("thinking", "reasoning", "text") if part.get(k)), "")
            thoughts.append(_content(thought, str(kind), message, reading)[-1]["content"])
        elif kind in ("tool_use", "tool_call") and (call := call_of(part)):
            calls.append(call)
        elif kind == "tool_result":
            result: Message = {"role": "tool", "content": ""}
            results += _content(part.get("content"), "tool_result", result, reading)
            results[-1].update({"tool_call_id": str(part["tool_use_id"])} if part.get("tool_use_id") else {})
        else:
            said = f"of type {str(kind)[:20]!r}" if kind else "without a type"
            raise BadRow(f"`{name}` has a part {said}, which is no text", "only text is trained on")
    if results and not (texts or thoughts or calls):
        return results
    more: Message = {"content": "\n".join(texts)}
    if thoughts:
        more["reasoning_content"] = "\n".join(thoughts)
    if calls:
        more["tool_calls"] = [*message.get("tool_calls", ()), *calls]
    return [*results, {**message, **more}]


def may_be_turns(text: str) -> bool:
    """Whether a question or an answer may be a list of turns in text."""
    return text.lstrip()[:2] in ("[{", "{'", '{"')


def side(value: Any, name: str, role: str, reading: Reading) -> list[Message]:
    """A question or an answer: text or parts, or turns already."""
    if isinstance(value, str) and may_be_turns(value) and _speaks(found := parsed(value)):
        reading.repairs[f"lists of `{name}` read out of text"] += 1
        value = found
    if _speaks(value):
        return turns_of(value, name, reading)
    if isinstance(value, (list, tuple, Mapping)) and value and not _is_parts(value):
        raise BadRow(f"`{name}` is {kind_of(value)}, not text")
    return _content(value, name, {"role": role, "content": ""}, reading)


def _beside(row: Row, name: str, reading: Reading) -> str:
    """What is given beside a question: a text, or a context of several in a list, one below the other."""
    value = row.get(name)
    if name == "input" or not isinstance(value, (list, tuple)):
        return as_text(reading.take(row, name), name, reading)
    if not all(isinstance(text, str) for text in value):
        return ""  # left unread, and named as such
    reading.read.add(name)
    if value:
        reading.repairs[f"lists of `{name}` joined by newlines"] += 1
    return "\n".join(value)


def _history(row: Row, reading: Reading) -> list[Message]:
    """The turns before the question: pairs, or messages."""
    value = row.get("history")
    if not is_nothing(value) and (not has_turns(value) or isinstance(value, Mapping)):
        return []  # left unread, and named as such
    return turns_of(reading.take(row, "history"), "history", reading)


def _carries_no_loss(item: Mapping[str, Any], reading: Reading) -> bool:
    """Whether a key of a turn says that it is read but not trained on."""
    untrained = False
    for key in LOSS_KEYS:
        value = item.get(key)
        if isinstance(value, str):
            value = {"false": False, "0": 0, "true": True, "1": 1}.get(value.strip().lower())
        if value is None or value != value:
            continue
        untrained = untrained or not value
        if value not in (0, 1):
            reading.repairs[f"turns with a `{key}` other than 0 and 1, trained like any other"] += 1
    return untrained


def _note_unread(item: Mapping[str, Any], read: set[str], reading: Reading) -> None:
    """Count the keys of a turn that carry something and are not read; pictures and sound make the row unusable."""
    for key, value in item.items():
        if key in read or is_nothing(value) or any(item.get(k) == value for k in read):
            continue
        check_media(key, value)
        if carries_text(key, value) or says_of_loss(key, value):
            reading.unread[key] += 1


def check_media(name: str, value: Any) -> None:
    """Raise `BadRow` for a column or key of pictures, sound or film, without which its text makes no sense."""
    if name in MEDIA and value not in (None, False) and not is_nothing(value):
        raise BadRow(f"`{name}`: a row with more than text", "only text is trained on")
