"""An OpenAI-compatible chat endpoint, asked as fast as it allows and no faster."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dsel.component import knob
from dsel.constraints import Address, Count, Positive, Text
from dsel.errors import ConfigError, need_env, need_package
from dsel.pool import Message
from dsel.secrets import redact

log = logging.getLogger(__name__)

KEY = "OPENAI_API_KEY"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the first retry, doubled for each further one up to the longest
PASSING = (408, 409, 425, 429)  # statuses worth asking again, and all from 500


class EndpointError(ConfigError):
    """A request that got no answer: refused for good (`status`), or failing still after all retries (None)."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


@dataclass
class Endpoint:
    """`ask` is safe to call from many threads; what it shares between them is the rate limit.

    model: as the endpoint names it. base_url: null is OpenAI's own. options: sent with every request (temperature,
    max_tokens, …). needs_key: false for a local server without keys; otherwise the key comes from the environment
    variable OPENAI_API_KEY. requests_per_minute: null is no limit. timeout: seconds for one request.
    """

    model: Text
    base_url: Address | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_key: bool = knob(True)
    concurrency: Count = knob(8)
    requests_per_minute: Positive | None = knob(None)
    timeout: Positive = knob(120.0)
    max_retries: int = knob(8)

    def __post_init__(self) -> None:
        self._gate = _Gate(60.0 / self.requests_per_minute if self.requests_per_minute else 0.0)
        self._stopped = threading.Event()

    def check(self, why: str) -> None:
        """Raise `ConfigError` for what can be known without asking; `why` names the option that wants the endpoint."""
        need_package("openai", install="dsel[api]", why=why)
        if self.needs_key:
            need_env(KEY, why=why)

    def ask(self, messages: Sequence[Message]) -> str:
        """The endpoint's answer, "" when it has nothing to say.

        Requests that fail for a passing reason (429, 5xx, time-outs, a lost connection) are sent again after growing
        pauses, or after what the endpoint's Retry-After asks for if that is longer; a 429 holds back all threads.

        Raises:
            ConfigError: the key or the model is refused (401, 403, 404).
            EndpointError: the request is refused, or still fails after `max_retries` retries.
        """
        import openai

        for attempt in range(self.max_retries + 1):
            self._pause(self._gate.delay())
            try:
                answer = self._client.chat.completions.create(
                    model=self.model, messages=list(messages), **dict(self.options)
                )
                return _content(answer)
            except openai.APIStatusError as error:
                status, reason = error.status_code, f"status {error.status_code}"
                if status in (401, 403, 404):
                    hint = f"check {KEY}" if status != 404 else "check its base_url and model"
                    raise ConfigError(f"{self._name} refuses to answer ({_message(error)}): {hint}") from None
                if status < 500 and status not in PASSING:
                    raise EndpointError(f"{self._name} refuses a request ({_message(error)})", status) from None
                asked = _retry_after(error.response.headers)
                if status == 429:
                    self._gate.hold(asked)
            except (openai.APIError, ValueError) as error:  # time-outs, lost connections, a body that is not JSON
                reason, asked = type(error).__name__, 0.0
            if attempt < self.max_retries:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.75, 1.25)
                log.debug("%s: %s; asking again in %.1f s", self._name, reason, max(pause, asked))
                self._pause(max(pause, asked))
        raise EndpointError(f"{self._name} still fails after {self.max_retries} retries ({reason})")

    def stop(self) -> None:
        """Let no further request out: threads that pause in `ask` raise `EndpointError` at once."""
        self._stopped.set()

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise EndpointError(f"{self._name} is not asked any more")

    @property
    def _name(self) -> str:
        return f"the endpoint {self.base_url or 'of OpenAI'}, model {self.model}"

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI

        key = os.environ.get(KEY) or ("" if self.needs_key else "none")
        return OpenAI(api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=0)


class _Gate:
    """Gives each caller its turn, `interval` seconds apart, and none for a while after `hold`."""

    def __init__(self, interval: float):
        self.interval = interval
        self._next = 0.0
        self._lock = threading.Lock()

    def delay(self) -> float:
        """Seconds until the caller's turn."""
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + self.interval
            return slot - now

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def _content(answer: Any) -> str:
    choices = getattr(answer, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        raise ValueError("the body is no chat completion")
    return message.content or ""


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for (a number or an HTTP date), 0 without one."""
    from email.utils import parsedate_to_datetime

    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _message(error: Any) -> str:
    """The endpoint's reason on one line, without keys."""
    return " ".join(redact(str(error)).split())[:300]
