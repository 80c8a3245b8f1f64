"""From messages to tokens, with a label on every token that the model itself would have written, and on no other."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import Any

from dsel.errors import ConfigError, need
from dsel.pool import Message, text_of

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"

IGNORED = -100
"""The label of a token that carries no loss."""

Span = tuple[int, int]
"""Characters of a rendered text: the first, and the one after the last."""

MARK = "the-text-stands-here"
MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
ASKED: Message = {"role": "user", "content": "x"}


class Refused(ConfigError, ValueError):
    """A chat template cannot render a conversation, or its responses cannot be told from the rest."""


def encode(tokenizer: Any, messages: Sequence[Message], max_length: int | None = None) -> tuple[list[int], list[int]]:
    """Token ids of the templated conversation, and their labels: the id where it carries loss, else -100.

    The first text of `encodings`, with the same labels. Where the template rewrites a response once later turns
    follow, that response is context only here. Raises `Refused`, a ValueError, as `encodings` does.
    """
    return encodings(tokenizer, messages, max_length)[0]


def encodings(
    tokenizer: Any, messages: Sequence[Message], max_length: int | None = None
) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of each text that a conversation is learnt from: nearly always one.

    Labelled is what the model itself would write after the generation prompt, up to and with the token that ends its
    turn, for each assistant turn but those with `train: False`; with generation markers in the template, what they
    hold of that, and the end. A response that the template renders otherwise once later turns follow (without its
    reasoning, say) gets a text of its own, in which it is the last turn. All lists are cut at `max_length`.

    Raises:
        Refused: when the template refuses the conversation, or does not show where a response begins.
    """
    return [labelled(tokenizer, text, spans, max_length) for text, spans in training_texts(tokenizer, messages)]


def labelled(
    tokenizer: Any, text: str, spans: Sequence[Span], max_length: int | None = None
) -> tuple[list[int], list[int]]:
    """Token ids of a rendered text, and their labels: those of tokens that begin inside a span, in order."""
    ids, offsets = _tokens(tokenizer, text, [start for start, _ in spans])
    ids, labels, span = ids[:max_length], [], 0
    for token, (start, end) in zip(ids, offsets, strict=False):
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        inside = span < len(spans) and spans[span][0] <= start and end > start
        labels.append(token if inside else IGNORED)
    return ids, labels


def _tokens(tokenizer: Any, text: str, edges: Sequence[int]) -> tuple[list[int], list[Span]]:
    """Ids of a text's tokens, and their characters; a token begins at each of `edges`.

    A prompt that ends in a space, as `ASSISTANT: `, is read up to there when an answer is asked for, but in the whole
    text the space belongs to the token of the answer's first word. So what is before an edge is read by itself; by a
    tokenizer that would add a space of its own there, it is not, and that token counts as the answer's.
    """

    def read(begin: int, end: int) -> tuple[list[int], list[Span]]:
        found = tokenizer(text[begin:end], add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], [(begin + a, begin + b) for a, b in found["offset_mapping"]]

    ids, offsets = read(0, len(text))
    starts = {start for start, _ in offsets}
    cuts = [edge for edge in edges if edge not in starts and edge < len(text)]
    if not cuts:
        return ids, offsets
    pieces = [read(*piece) for piece in pairwise([0, *cuts, len(text)])]
    apart = [token for piece, _ in pieces for token in piece]
    if tokenizer.decode(apart) == tokenizer.decode(ids):
        return apart, [span for _, spans in pieces for span in spans]
    added = tokenizer.added_tokens_decoder
    for i, (start, end) in enumerate(offsets):
        edge = next((cut for cut in cuts if start < cut < end), None)
        if edge is not None and ids[i] not in added:
            offsets[i] = (edge, end)
    return ids, offsets


def training_texts(tokenizer: Any, messages: Sequence[Message]) -> list[tuple[str, list[Span]]]:
    """(rendered text, spans that carry loss) for each text of `encodings`; the whole conversation is the first.

    What the template leaves out is said in the log, once a template (`dsel.model.trial` counts it over a pool).
    """
    dialect = dialect_of(tokenizer, messages)
    whole, marks = dialect.apply(messages)
    spans: list[Span] = []
    alone: list[tuple[str, list[Span]]] = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or not message.get("train", True):
            continue
        last = i == len(messages) - 1
        text, own = (whole, marks) if last else dialect.apply(messages[: i + 1])
        start = _start(dialect, messages[:i], text, own)
        end = dialect.ending.search(text, start)
        if end is not None:
            text = text[: end.end(1)]
        else:  # no token that stops generation: a space before the next turn is not the model's
            text = text.rstrip()
            if last and tokenizer.eos_token:
                own = [*own, (len(text), len(text) + len(tokenizer.eos_token))] if own else own
                text = whole = text + tokenizer.eos_token
        said = dialect.piece.sub("", text[start : end.start(1) if end else len(text)])
        if not said and dialect.piece.sub("", text_of(message)):
            continue  # all of it is left out, which is no reason to learn silence
        found = [(start, len(text))]
        if dialect.marked:
            found = [(max(start, a), min(b, len(text))) for a, b in own if a < len(text) and b > start]
            found += [] if end is None or not found else [end.span(1)]
        if whole.startswith(text):
            spans += found
        else:
            alone.append((text, found))
    texts = [(whole, spans), *alone]
    if not dialect.told and (lost := left_out(messages, [text for text, _ in texts])):
        dialect.told = True
        log.warning("the chat template leaves out %s (said once); model.chat_template=turns does not", and_more(lost))
    return texts


def _start(dialect: Dialect, asked: Sequence[Message], text: str, marks: Sequence[Span]) -> int:
    """Where the last response of `text` begins: after the generation prompt that follows `asked`.

    A prompt may open more than the response has, as `<think>` where nothing is thought: then after what they share.
    """
    try:
        before = dialect.apply(asked, prompt=True)[0]
    except Refused:  # a part of a conversation, or none of it: the prompt is known from another one
        at = text.rfind(dialect.opening)
        if not dialect.opening or at < 0:
            raise
        return at + len(dialect.opening)
    shared = len(commonprefix([before, text]))
    if shared == len(before):
        return shared
    opened = len(commonprefix([before, dialect.apply(asked)[0]])) if asked else 0
    cuts = {at for piece in dialect.piece.finditer(before, opened) for at in piece.span()}
    if cuts := {cut for cut in cuts if opened < cut <= shared}:
        return max(cuts)
    if marks:
        return marks[-1][0]
    raise Refused("it changes earlier turns, or its own generation prompt, so that no response can be told apart")


def render(tokenizer: Any, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """The conversation as the model reads it, up to the header of the next response with `generation_prompt`.

    Raises `Refused`, a ValueError, where the template refuses it.
    """
    dialect = dialect_of(tokenizer, messages)
    return dialect.apply(messages, prompt=generation_prompt, source=dialect.source)[0]


def template(name: str, *, option: str) -> str:
    """The chat template called `name`: a file of `dsel/model/templates`, or a path. `ConfigError` naming `option`."""
    named = TEMPLATES / f"{name}.jinja"
    path = named if named.exists() else Path(name).expanduser()
    known = ", ".join(sorted(p.stem for p in TEMPLATES.glob("*.jinja")))
    need(path.is_file(), f"{option}={name}: neither one of {known} nor a file")
    return path.read_text(encoding="utf-8")


def end_tokens(tokenizer: Any, configured: int | Iterable[int] | None = None) -> list[int]:
    """The ids that end an answer, sorted: the tokenizer's, the `configured` ones of the model, and the chat template's.

    The last are what follows a response in the template (Llama 3's `<|eot_id|>`, which is not the base model's end of
    text), and a tool call (`<|call|>` of gpt-oss).
    """
    ends = {*([configured] if isinstance(configured, int) else configured or ())}
    ends |= set(tokenizer.convert_tokens_to_ids(list(dialect_of(tokenizer, []).ends)))
    return sorted(ends - {None})


@dataclass
class Dialect:
    """What holds of every conversation under one chat template, found out by rendering small ones.

    source: the tokenizer's template. training: the one that training texts are rendered with, TRL's variant where it
    knows the source (earlier turns stay as they were), else the same; marked: it has generation markers. parts: it
    reads contents as lists of parts only; spelled: it reads the arguments of a tool call as JSON text only. opening:
    its generation prompt. end: the token that ends a turn, as text, None where it ends none; ends: all tokens that
    stop generation, `tokenizer.eos_token` among them. ending: finds, in a rendered text, the first of the end tokens
    that nothing but space follows. piece: where a generation prompt may be cut. header: what it puts before a response
    and, without a generation prompt, leaves to the model to write. tail: the generation prompt, where it adds that to
    any conversation: it is taken off again. told: somebody has said what it leaves out.
    """

    source: str
    training: str
    tokens: Mapping[str, Any]
    marked: bool = False
    parts: bool = False
    spelled: bool = False
    opening: str = ""
    end: str | None = None
    ends: frozenset[str] = frozenset()
    ending: re.Pattern[str] = re.compile(r"(?!)")
    piece: re.Pattern[str] = re.compile(r"(?!)")
    header: str = ""
    tail: str = ""
    told: bool = False

    def apply(
        self, messages: Sequence[Message], *, prompt: bool = False, source: str | None = None
    ) -> tuple[str, list[Span]]:
        """The rendered conversation, and what lies between generation markers. Raises `Refused`."""
        try:
            return self._apply(messages, prompt, source or self.training, self.spelled)
        except Refused:
            if not any(message.get("tool_calls") for message in messages):
                raise
            try:
                return self._apply(messages, prompt, source or self.training, not self.spelled)
            except Refused:
                pass
            raise

    def _apply(self, messages: Sequence[Message], prompt: bool, source: str, spelled: bool) -> tuple[str, list[Span]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [_turn(message, self.parts, spelled) for message in messages]
        marked = self.marked and not prompt and source == self.training
        try:
            texts, marks = render_jinja_template(
                conversations=[turns],
                tools=(messages[0].get("tools") or None) if messages else None,
                chat_template=source,
                return_assistant_tokens_mask=marked,
                add_generation_prompt=prompt,
                **self.tokens,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise Refused(" ".join(str(error).split())) from error
        return texts[0] if prompt else texts[0].removesuffix(self.tail), marks[0] if marked else []


def dialect_of(tokenizer: Any, messages: Sequence[Message]) -> Dialect:
    """The dialect of the tokenizer's template, or of the one of several that it has for conversations with tools."""
    tools = (messages[0].get("tools") or None) if messages else None
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return _dialect(tokenizer, tokenizer.get_chat_template(tools=tools), tuple(sorted(tokens.items())))


@lru_cache(maxsize=16)
def _dialect(tokenizer: Any, source: str, tokens: tuple[tuple[str, str], ...]) -> Dialect:
    training = _training_template(tokenizer, source)
    dialect = Dialect(source, training, dict(tokens), marked=MARKERS.search(training) is not None)
    added = sorted({t.content for t in tokenizer.added_tokens_decoder.values() if t.content.strip()}, key=len)[::-1]
    token = "|".join(map(re.escape, added)) or r"(?!)"
    dialect.piece = re.compile(rf"(?:{token})|\s+")
    answer, call = {"role": "assistant", "content": MARK}, {"name": MARK, "arguments": {"key": MARK}}

    def rendered(*messages: Message, prompt: bool = False) -> str:
        try:
            return dialect.apply(messages, prompt=prompt)[0]
        except Refused:
            return ""

    if MARK not in rendered(ASKED, answer):
        dialect.parts = True
        dialect.parts = MARK in rendered(ASKED, answer)
    calling = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
    called = rendered(ASKED, calling)
    if f"'{MARK}'" in called:  # perhaps as Python writes a dictionary
        with suppress(Refused):
            called, dialect.spelled = dialect._apply([ASKED, calling], False, training, True)[0], True
    asked = {"role": "user", "content": MARK}
    before = (rendered(asked, answer).split(MARK) + [""])[1]
    dialect.tail = _unasked(rendered(ASKED, answer, asked), rendered(ASKED, answer), before, token)
    closed, opened = (rendered(asked, prompt=prompt).rpartition(MARK)[2] for prompt in (False, True))
    if closed == opened and before.startswith(closed):
        dialect.header = before[len(closed) :].strip()
    at = len(commonprefix([closed, opened]))
    cuts = [m.start() for m in dialect.piece.finditer(opened) if m.end() > at and not m[0].isspace()]
    dialect.opening = opened[min(at, *cuts) if cuts else at :]

    last, earlier = (
        list(_closing(re.compile(rf"\s*({token})"), rendered(ASKED, answer, *more).rpartition(MARK)[2]))
        for more in ([], [ASKED])
    )
    shared = commonprefix([last, earlier]) or last
    dialect.end = shared[-1] if shared else None
    ends = {dialect.end, tokenizer.eos_token}
    if MARK in called and (final := re.search(rf"({token})\s*\Z", called)):
        ends.add(final[1])
    dialect.ends = frozenset(end for end in ends if end)
    if dialect.ends:
        one = "|".join(map(re.escape, sorted(dialect.ends, key=len, reverse=True)))
        dialect.ending = re.compile(rf"({one})(?:\s|{one})*\Z")
    return dialect


def _unasked(goes_on: str, ends: str, before: str, token: str) -> str:
    """The generation prompt that a template adds to any conversation, also to one that `ends` with an answer.

    It is what follows the answer there, and not where the conversation `goes_on`, but `before` an answer.
    """
    after, between = ends.rpartition(MARK)[2], (goes_on.split(MARK) + [""])[1]
    at = len(commonprefix([after, between]))
    if not after[at:].strip() or not before.endswith(after[at:]):
        return ""
    cuts = [m.start() for i, m in enumerate(re.finditer(token, after)) if m.start() < at and (i or m.end() > at)]
    return after[max([*cuts, after.rfind("\n", 0, at) + 1]) or at :]


def _closing(token: re.Pattern[str], text: str) -> Iterator[str]:
    """The tokens that `text` begins with, in order, whatever space is between them."""
    at = 0
    while found := token.match(text, at):
        yield found[1]
        at = found.end()


def _training_template(tokenizer: Any, source: str) -> str:
    """TRL's variant of a template for training, where it has one, else the template itself."""
    from jinja2 import TemplateError
    from trl.chat_template_utils import get_training_chat_template

    if tokenizer.chat_template != source:  # one of several
        return source
    try:
        return get_training_chat_template(tokenizer) or source
    except (TemplateError, TypeError, ValueError):  # it knows no variant, or could not even try
        return source


def _turn(message: Message, parts: bool, spelled: bool) -> dict[str, Any]:
    """A message as templates read it: without what is ours, its tool calls in the form that transformers documents."""
    turn = {k: v for k, v in message.items() if k not in ("tools", "train") and v is not None}
    if parts:
        turn["content"] = [{"type": "text", "text": message["content"]}]
    calls = turn.pop("tool_calls", None)
    return {**turn, "tool_calls": [_call(call, spelled) for call in calls]} if calls else turn


def _call(call: Mapping[str, Any], spelled: bool) -> dict[str, Any]:
    """A tool call with its arguments as JSON text (`spelled`) or as a dictionary, where they are one."""
    function = dict(call.get("function") or {k: call[k] for k in ("name", "arguments") if k in call})
    arguments = function.get("arguments") or {}
    if spelled:
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    elif isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except ValueError:
            read = None
        arguments = read if isinstance(read, dict) else arguments
    rest = {k: v for k, v in call.items() if k not in ("function", "name", "arguments")}
    return {"type": "function", **rest, "function": {**function, "arguments": arguments}}


def left_out(messages: Sequence[Message], texts: Sequence[str]) -> list[str]:
    """What of the messages stands in none of the rendered texts, white space aside: names of kinds, each once."""
    found = ["".join(text.split()) for text in texts]

    def has(piece: str) -> bool:
        forms = (lambda: piece, lambda: json.dumps(piece, ensure_ascii=False)[1:-1])  # a tool's answer may be JSON text
        return any("".join(form().split()) in text for form in forms for text in found)

    lost: dict[str, None] = {}
    for message in messages:
        if not all(map(has, re.split(r"</?think>", message["content"]))):
            lost["a part of a response" if message["role"] == "assistant" else f"a {message['role']} message"] = None
        if not has(message.get("reasoning_content") or ""):
            lost["reasoning"] = None
        if not all(map(has, _leaves([_call(call, False)["function"] for call in message.get("tool_calls") or ()]))):
            lost["a tool call"] = None
        tools = [tool.get("function", tool) for tool in message.get("tools") or ()]
        if not all(has(str(tool.get(what) or "")) for tool in tools for what in ("name", "description")):
            lost["the tools"] = None
    return list(lost)


def _leaves(value: Any) -> Iterator[str]:
    """All text in a nest of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _leaves(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)


def and_more(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
