"""What is installed is whole: the commands find their configurations from any folder, and hints name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import dsel
from tests.conftest import ROOT, offline

Start = Callable[..., str]
EDITABLE = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"  # as pip asks for it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def installed(wheel: Path, folder: Path) -> Start:
    """Runs commands in an environment that has the wheel, and of the present one the packages but dsel."""
    venv.create(folder / "venv", symlinks=True)
    programs = folder / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=100)
    (there,) = (folder / "venv").glob("lib/*/site-packages")
    (there / "others.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files, dsel's too, do not count
    (folder / "elsewhere").mkdir()
    environment = {k: v for k, v in offline(folder).items() if k != "PYTHONPATH"}

    def start(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [programs / program, *arguments],
            cwd=folder / "elsewhere", env=environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


def test_a_wheel_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    start = installed(wheel, tmp_path)
    where = Path(start("python", "-c", "import dsel; print(dsel.__path__[0])").strip())
    assert where.is_relative_to(tmp_path)
    shown = start("dsel", "--help")
    assert "selector: " in shown and "experiments: " in shown and "sweeps: " in shown
    assert f"{where}/conf/<group>/" in shown
    assert "what would run" in start("dsel", "experiments=quickstart", "plan=true")
    assert "python -m dsel.report " in start("python", "-m", "dsel.report", "--help")
    assert "dsel compare " in start("python", "-m", "dsel.compare", "--help")


def test_a_wheel_holds_every_file_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    start = installed(wheel, tmp_path)
    code = "from dsel.config_groups import ROOT; print(*(p.relative_to(ROOT) for p in ROOT.rglob('*.*')), sep='\\n')"
    there = {Path(line) for line in start("python", "-c", code).splitlines() if "__pycache__" not in line}
    configs = {p.relative_to(ROOT) for f in ("conf", "experiments", "sweeps") for p in (ROOT / f).rglob("*.yaml")}
    sources = {p.relative_to(ROOT / "dsel") for p in (ROOT / "dsel").rglob("*.*") if "__pycache__" not in p.parts}
    assert there == configs | sources


def test_an_editable_install_works_from_any_folder(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", EDITABLE, tmp_path], cwd=ROOT, check=True, capture_output=True, timeout=100)
    (built,) = tmp_path.glob("*.whl")
    start = installed(built, tmp_path)
    assert f"{ROOT}/conf/<group>/" in start("dsel", "--help")


def test_the_version_stands_once(wheel: Path) -> None:
    assert wheel.name.startswith(f"dsel-{dsel.__version__}-")
    assert f'"{dsel.__version__}"' not in (ROOT / "pyproject.toml").read_text()


def test_every_extra_that_is_named_exists() -> None:
    declared = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = ", declared, flags=re.MULTILINE))
    documents = [ROOT / "pyproject.toml", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in [*documents, *(ROOT / "dsel").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]:
        named = {name for found in re.findall(r"dsel\[([\w, -]+)\]", path.read_text()) for name in found.split(",")}
        assert named <= extras, f"{path.relative_to(ROOT)}: {named - extras}"
