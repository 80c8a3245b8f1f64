"""Makes the top-level folders `experiments/` and `sweeps/` Hydra config groups beside those in `conf/`."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("experiments", "sweeps")


class RepositorySource(FileConfigSource):
    """The repository's root as a place of configs, of which only `FOLDERS` are seen.

    With the plain root Hydra would walk through everything in it, virtual environments too, to list its groups.
    """

    @staticmethod
    def scheme() -> str:
        return "dsel"

    def is_group(self, config_path: str) -> bool:
        return config_path.split("/")[0] in ("", *FOLDERS) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return config_path.split("/")[0] in FOLDERS and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path:
            return super().list(config_path, results_filter)
        return [] if results_filter == ObjectType.CONFIG else list(FOLDERS)


class RepositorySearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("dsel", f"{RepositorySource.scheme()}://{ROOT}")


def register() -> None:
    """Tell Hydra; to be called before it composes anything."""
    Plugins.instance().register(RepositorySource)
    Plugins.instance().register(RepositorySearchPath)
