"""Set-up as a newcomer meets it: a Python that is too old, what continuous integration runs, and what the built package holds."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
DATA = {".py", ".yaml", ".html", ".j2", ".css", ".js", ".typed"}


def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.8.1; exit 0; fi\nexit 1\n')
    old.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "-s", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode != 0
    assert "Python 3.8.1" in done.stderr and "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_continuous_integration_is_runnable_and_strict() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    lines = script.read_text("utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert [line.split("<")[0].strip() for line in lines if line.startswith("make")] == ["make lint", "make test"]


def test_all_holds_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert Requirement(extras["all"][0]).extras == set(extras) - {"all"}


def test_the_built_package_holds_every_file(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools", reason="a build without the package index needs setuptools here")
    if Version(setuptools.__version__) < Version("77"):
        pytest.skip("setuptools 77 or newer builds the package; an older one is installed here")
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    wanted = {p.relative_to(source).as_posix() for p in (source / "unisono").rglob("*") if p.suffix in DATA and p.is_file()}
    assert len(wanted) > 100
    assert wanted <= packed, f"missing from the built package: {sorted(wanted - packed)}"
