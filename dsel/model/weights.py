"""What files a model's weights are in: safetensors, which are numbers and nothing else, or pickled `.bin` files."""

from __future__ import annotations

import logging
import os
from collections.abc import Set
from functools import lru_cache
from pathlib import Path
from typing import Any

from dsel.errors import need

log = logging.getLogger(__name__)

SAFE = {"model.safetensors", "model.safetensors.index.json"}
PICKLED = {"pytorch_model.bin", "pytorch_model.bin.index.json"}
SECONDS = 10  # to wait for the hub's answer


def need_weights(hub: str, path: str | None, revision: str | None, *, option: str, allow_bin: bool) -> None:
    """Raise `ConfigError` when the weights in the folder `path`, or at the hub, are `.bin` files that nobody allowed.

    `option` is the config group that names the model. What the hub does not tell now (no network, a gated model) is
    found out when the model is loaded.
    """
    if allow_bin or not (hub or path):
        return
    names: Set[str]
    if path is None:
        names, where = _files_of_hub(hub, revision), f"{option}.hub={hub}, revision {revision or 'main'}"
        advice = "give a revision that has safetensors, often one of its pull requests (refs/pr/N)"
    else:
        names, where = {p.name for p in Path(path).expanduser().glob("*")}, f"{option}.path={path}"
        advice = "save them as safetensors"
    advice += f", or set {option}.allow_bin=true, which reads their numbers and nothing else"
    need(
        bool(names & SAFE) or not names & PICKLED,
        f"{where}: its weights are there as .bin files alone, which can carry code: {advice}",
    )


def safe_loading(allow_bin: bool) -> dict[str, Any]:
    """What transformers is told about weights: safetensors, or with `allow_bin` the rest too, where there are none.

    It reads `.bin` files with an unpickler that knows tensors and no code (torch's `weights_only`).
    """
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "true")  # it would ask a service of the hub to convert them
    return {"use_safetensors": None if allow_bin else True}


@lru_cache
def _files_of_hub(hub: str, revision: str | None) -> frozenset[str]:
    """The names of the files in a repository of the hub; offline, of those that are here; nothing when it is silent."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        listed = HfApi().model_info(hub, revision=revision, timeout=SECONDS)
        return frozenset(file.rfilename for file in listed.siblings or ())
    except Exception as error:  # offline, gated, renamed: the library raises a dozen kinds
        log.debug("%s: the hub does not list its files (%s)", hub, error)
    try:
        folder = Path(snapshot_download(hub, revision=revision, local_files_only=True))
        return frozenset(p.name for p in folder.iterdir())
    except Exception:
        return frozenset()
