"""What leaves the repository: the wheel holds what a person runs, the sdist all that it takes to test it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from the unpacked sdist alone."""
    pytest.importorskip("setuptools", "77")
    out = tmp_path_factory.mktemp("built")
    (out / "source").mkdir()
    for path in ROOT.iterdir():  # a copy without what earlier builds have left
        if path.name not in {"build", "dist", ".git", ".venv"} and not path.name.endswith(".egg-info"):
            (out / "source" / path.name).symlink_to(path)
    _build("sdist", out / "source", out)
    with tarfile.open(next(out.glob("*.tar.gz"))) as sdist:
        sdist.extractall(out / "unpacked", filter="data")
    _build("wheel", next((out / "unpacked").iterdir()), out)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        wheel.extractall(out / "installed")
    return out


def _build(kind: str, source: Path, out: Path) -> None:
    program = f"import setuptools.build_meta as b; b.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _sources(*folders: str) -> set[str]:
    found = {path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_every_package_is_listed() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "curate").rglob("*.py")}
    assert PROJECT["tool"]["setuptools"]["packages"] == ["curate", *sorted((folders | {"curate.recipes"}) - {"curate"})]


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    files = _files(next((built / "unpacked").iterdir()))
    top = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "constraints.txt"}
    wanted = top | {"pyproject.toml"} | _sources(".ci", "curate", "notebooks", "recipes", "tests")
    assert len(wanted) > 150
    assert wanted - files == set()
    assert not [name for name in files if name.endswith(".pyc")]


def test_the_wheel_holds_the_package_its_data_and_the_recipes(built: Path) -> None:
    files = {name for name in _files(built / "installed") if ".dist-info/" not in name}
    shipped = [n for n in _sources("recipes") if n.endswith(".yaml") or n.startswith("recipes/tasks/")]
    recipes = {f"curate/{name}" for name in shipped}
    assert len(recipes) >= 9
    assert files == _sources("curate") | recipes


def test_from_the_wheel_alone_recipes_are_listed_and_the_version_is_said(built: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(built / "installed")}

    def said(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "curate", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert [line.split()[0] for line in said("recipes").splitlines()] == [
        "7b-24gb",
        "compare-alpaca",
        "demo",
        "recommended",
        "small",
    ]
    assert said("recipes", "small") == (ROOT / "recipes" / "small.yaml").read_text(encoding="utf-8")
    assert said("--version") == f"curate {PROJECT['project']['version']}\n"


def test_extras_are_for_those_who_use_the_package() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"quantization", "eval", "report", "demo", "gguf", "dev", "all"}
    assert extras["all"] == ["lc-curate[quantization,eval,report,demo,gguf]"]


def test_the_tested_versions_name_every_direct_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = [*PROJECT["project"]["dependencies"]]
    for name, extra in PROJECT["project"]["optional-dependencies"].items():
        wanted += [] if name == "all" else extra
    names = {
        word.partition("[")[0].lower().replace("_", "-") for w in wanted for word in [w.split(">")[0].split("=")[0]]
    }
    assert names - pinned == set()
