"""Models and tokenizers of the hub, or in a folder: how transformers is asked for them, whoever loads one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.component import local_identity
from dsel.errors import need, need_path
from dsel.model.weights import need_weights, safe_loading

if TYPE_CHECKING:
    import torch


class Hosted:
    """What a component loads that has these fields.

    hub: a model's id, of which `revision` is a branch, tag or commit; path: a local folder instead of it.
    trust_remote_code: whether code that comes with it may run. allow_bin: whether weights may come as `.bin` files,
    where there are no safetensors.
    """

    hub: str | None
    path: str | None
    revision: str | None
    trust_remote_code: bool
    allow_bin: bool = False

    def need_files(self, option: str, *, config: bool = True) -> None:
        """Raise `ConfigError` for a folder that is none or has no `config.json`, and for weights not to be had safely.

        Args:
            option: The component's name in the configuration.
            config: Whether the folder of a model has a `config.json`.
        """
        if self.path is not None:
            folder = need_path(self.path, option=f"{option}.path")
            there = not config or (folder / "config.json").exists()
            need(there, f"{option}.path={self.path}: no config.json in this folder")
        need_weights(self.hub or "", self.path, self.revision, option=option, allow_bin=self.allow_bin)

    def extra_identity(self) -> dict[str, Any]:
        """A model in a folder is known by its files."""
        return local_identity(self.path)

    @property
    def place(self) -> str:
        """What transformers is asked for: the folder, or the hub's id."""
        return str(Path(self.path).expanduser()) if self.path is not None else self.hub or ""

    def pretrained(self, auto: Any, **how: Any) -> Any:
        """What `auto`, one of transformers' classes, makes of it: a configuration, a tokenizer, a model.

        Args:
            auto: A class with `from_pretrained`.
            how: What it is told besides.
        """
        revision = self.revision or "main"
        return auto.from_pretrained(self.place, revision=revision, trust_remote_code=self.trust_remote_code, **how)

    def weights(self, auto: Any, device: torch.device | None, **how: Any) -> Any:
        """The model with its weights, read safely and straight to `device`; None leaves that to a launcher."""
        straight = None if device is None or device.type == "cpu" else {"": device}
        return self.pretrained(auto, device_map=straight, **safe_loading(self.allow_bin), **how)
