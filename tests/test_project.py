"""The project's own files: what a newcomer types first, and whether ranges, pins and the built package agree."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

DATA = {".yaml", ".html", ".j2", ".css", ".js", ".typed"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, Version]:
    lines = [line.split("#")[0].strip() for line in (root / "constraints.txt").read_text("utf-8").splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def ranges(project: dict[str, Any]) -> list[Requirement]:
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


def test_readme_begins_with_the_two_commands(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    fenced = [
        line for block in re.findall(r"^```\w*\n(.*?)^```|^((?:    .*\n)+)", readme, re.M | re.S) for line in "".join(block).splitlines()
    ]
    commands = [line.strip() for line in fenced if line.strip()]
    assert commands[:2] == ["make demo", "make test"]


def test_every_requirement_is_pinned_inside_its_range(project: dict[str, Any], pins: dict[str, Version]) -> None:
    for requirement in ranges(project):
        name = canonicalize_name(requirement.name)
        if name != "unisono":
            assert name in pins, f"{name} has no pin in constraints.txt"
            assert requirement.specifier.contains(pins[name]), f"{requirement} does not admit the pin {pins[name]}"


def test_torch_is_pinned(pins: dict[str, Version]) -> None:
    assert pins["torch"] == Version("2.13.0")


def test_nothing_that_breaks_beside_a_cpu_torch_is_required(project: dict[str, Any], pins: dict[str, Version]) -> None:
    shunned = {"torchvision", "torchaudio", "timm"}
    assert not shunned & {canonicalize_name(r.name) for r in ranges(project)}
    assert not shunned & set(pins)


def test_all_holds_every_extra(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    assert Requirement(extras["all"][0]).extras == set(extras) - {"all"}


def test_version_is_written_once(root: Path, project: dict[str, Any]) -> None:
    import unisono

    assert "version" in project["dynamic"]
    assert f"## {unisono.__version__}" in (root / "CHANGELOG.md").read_text("utf-8")


def test_ci_is_runnable_and_strict(root: Path) -> None:
    script = root / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in script.read_text("utf-8")


def test_make_refuses_an_old_python(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.8.1; exit 0; fi\nexit 1\n')
    old.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "-s", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode != 0
    assert "Python 3.8.1" in done.stderr and "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_built_package_holds_every_data_file(root: Path, tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools", reason="builds without the package index need setuptools here")
    if Version(setuptools.__version__) < Version("77"):
        pytest.skip("setuptools 77 or newer builds the package; an older one is installed here")
    copy = tmp_path / "copy"
    shutil.copytree(root / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(root / name, copy)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = root / "src"
    wanted = {p.relative_to(source).as_posix() for p in (source / "unisono").rglob("*") if p.suffix in DATA | {".py"} and p.is_file()}
    assert wanted <= packed, f"missing from the built package: {sorted(wanted - packed)}"
