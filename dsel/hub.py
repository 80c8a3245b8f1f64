"""What has to be fetched from the hub: where it cannot be had, one line says what, why, and where a local copy goes."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

from dsel.errors import ConfigError

log = logging.getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])

REASONS = {  # an error's own name → what it comes to
    "GatedRepoError": "access to it has to be asked for on its page, and `hf auth login` shows that it was given",
    "RepositoryNotFoundError": "there is no such repository, or not for this login",
    "RevisionNotFoundError": "it has no such revision",
    "HFValidationError": "this is no repository's name",
}
LIBRARIES = ("huggingface_hub", "httpx", "requests", "urllib3", "datasets", "fsspec")
SECONDS = 10.0  # that the hub has to say what a revision is
COMMIT = re.compile(r"[0-9a-f]{40}")

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


@contextmanager
def fetching(what: str, remedy: str, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns what goes wrong inside with files and the network into a `ConfigError`: `what` cannot be had, and `remedy`.

    Anything else, as memory that runs out, passes through; `also` are further kinds that do not.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or not (
            isinstance(error, (OSError, *also)) or type(error).__module__.split(".")[0] in LIBRARIES
        ):
            raise
        raise ConfigError(f"{what} cannot be had ({reason(error)}); {remedy}") from error


def reason(error: BaseException) -> str:
    """In a few words why something was not to be had, from an error or what caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in REASONS:
            return REASONS[type(cause).__name__]
        if type(cause).__name__ in ("OfflineModeIsEnabled", "LocalEntryNotFoundError"):
            return f"it is not in the hub's cache, and {_no_network()}"
        cause = cause.__cause__ or cause.__context__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else f"{line[:197]}…"


@cache
def commit_of(hub: str, revision: str | None, kind: str = "model") -> str | None:
    """The commit that a revision of a model (or `dataset`) of the hub stands for now, asked once a process.

    Without a network it is the one that the hub's cache holds; None where that has none.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    wanted = revision or "main"
    if COMMIT.fullmatch(wanted) or Path(hub).expanduser().is_dir():
        return revision
    if not offline():
        try:
            return HfApi().repo_info(hub, repo_type=kind, revision=wanted, timeout=SECONDS).sha
        except Exception as error:  # no network, no permission: loading will say so
            log.debug("%s %s: its commit cannot be asked for (%s)", kind, hub, reason(error))
    noted = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub, repo_type=kind) / "refs" / wanted
    return noted.read_text(encoding="utf-8").strip() if noted.is_file() else None


def offline() -> bool:
    """Whether the hub's libraries were told not to use the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@cache
def answers() -> bool:
    """Whether the hub can be reached, asked once a process and once only: its libraries go on asking for half a minute.

    Any answer is one. Where nothing answers, what is in the hub's cache is all that there is.
    """
    from huggingface_hub import constants, get_session

    if offline():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:
        log.debug("the hub cannot be reached (%s)", reason(error))
        return False
    return True


def _no_network() -> str:
    return "HF_HUB_OFFLINE is set" if offline() else "no network"


def loads(option: str) -> Callable[[Method], Method]:
    """For a method of a component with `hub` and `path` that loads from them; `option` is the component's."""

    def decorate(method: Method) -> Method:
        @wraps(method)
        def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
            # a model of a kind that the library does not know, or needs a package for
            with fetching(*_words(self, option), also=(ValueError, ImportError)):
                return method(self, *args, **kwargs)

        return inside  # type: ignore[return-value]

    return decorate


def need_models(component: Any, option: str) -> None:
    """Raise `ConfigError` for a model of the hub, of a component or of those in it, that cannot be had here.

    Asked for is a model's configuration, a few kilobytes; without a network its weights must be in the hub's cache.
    """
    if not dataclasses.is_dataclass(component) or isinstance(component, type):
        return
    hub = getattr(component, "hub", None)
    if hub and getattr(component, "path", None) is None and not Path(hub).expanduser().is_dir():
        with fetching(*_words(component, option)):
            _need_model(hub, getattr(component, "revision", None))
    for field in dataclasses.fields(component):
        need_models(getattr(component, field.name), f"{option}.{field.name}")


def _need_model(hub: str, revision: str | None) -> None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    there = answers()
    hf_hub_download(hub, "config.json", revision=revision, local_files_only=not there)
    if there:
        return
    here = (try_to_load_from_cache(hub, name, revision=revision) for name in WEIGHTS)
    if not any(isinstance(path, str) and Path(path).exists() for path in here):
        raise FileNotFoundError(f"of its files the weights are not in the hub's cache, and {_no_network()}")


def _words(component: Any, option: str) -> tuple[str, str]:
    """What a component's model is called in a message, and what to do without it."""
    if getattr(component, "path", None) is not None:
        return f"{option}.path={component.path}", "see that the model's folder is whole"
    remedy = f"check the name, the network and `hf auth login`, or set {option}.path to the folder of a local copy"
    return f"{option}.hub={component.hub}", remedy
