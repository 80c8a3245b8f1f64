"""Where Hydra finds configurations: the groups in `conf/`, and `experiments/` and `sweeps/` beside it as two more."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent  # a wheel has them inside, a checkout beside
FOLDERS = ("experiments", "sweeps")
GROUPS = tuple("data targets embedder clusterer scorer selector model trainer evaluator tracker engine".split())
"""The groups of which a run has one component each."""

NO_RESULT = ("tracker", "engine")
"""Those among them that change nothing in what comes out."""


class Folders(ConfigSource):
    """`conf/`, `experiments/` and `sweeps/` as one source. Files whose name begins with `_` are bases, not choices."""

    @staticmethod
    def scheme() -> str:
        return "dsel"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        text = _file(config_path).read_text(encoding="utf-8")
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(text),
            header=self._get_header_dict(text),
        )

    def is_group(self, config_path: str) -> bool:
        return _folder(config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return _file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        inside = [path for path in _folder(config_path).iterdir() if not path.name.startswith("_")]
        groups = [path.name for path in inside if path.is_dir()] + ([] if config_path else [*FOLDERS])
        configs = [path.stem for path in inside if path.suffix == ".yaml"]
        wanted = {ObjectType.GROUP: groups, ObjectType.CONFIG: configs, None: groups + configs}
        return sorted(wanted[results_filter])


def _folder(path: str) -> Path:
    return (ROOT if path.split("/")[0] in FOLDERS else ROOT / "conf") / path


def _file(path: str) -> Path:
    return _folder(path if path.endswith(".yaml") else f"{path}.yaml")


class FoldersSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("dsel", f"{Folders.scheme()}://{ROOT}")


def register() -> None:
    """Tell Hydra; to be called before it composes anything."""
    Plugins.instance().register(Folders)
    Plugins.instance().register(FoldersSearchPath)


def composed(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """A run's configuration, open to changes, and what is chosen of each group. Raises what Hydra and OmegaConf do."""
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config, choices


def options(group: str) -> list[str]:
    """The choices of a config group."""
    folder = _folder(group)
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("_"))
