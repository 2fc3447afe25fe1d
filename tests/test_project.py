"""The files around the code agree with each other and with the code."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import unisono

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    found = [Requirement(text) for group in (PROJECT["project"]["dependencies"], *extras) for text in group]
    return [r for r in found if r.name != "unisono"]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(re.split("==", line.lower().replace("_", "-")) for line in lines if line and not line.startswith("#"))


def test_the_readme_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:    |\$ )?((?:make|pip|unisono|python) [^\n]*?)\s*$", text, re.M)
    assert commands[:2] == ["make demo", "make test"]
    assert re.search(r"^ *make demo\n *make test\n", text, re.M)


def test_the_makefile_has_every_target_the_readme_names() -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        assert set(re.findall(r"(?:`|^|\s{4})make ([a-z]+)", (ROOT / name).read_text(encoding="utf-8"), re.M)) <= made, name


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_inside_its_range(requirement: Requirement) -> None:
    pinned = constraints()
    assert requirement.name.lower() in pinned
    assert requirement.specifier.contains(Version(pinned[requirement.name.lower()]))


def test_what_pulls_unneeded_builds_is_no_requirement() -> None:
    assert constraints()["torch"] == "2.13.0"
    assert not {"torchvision", "torchaudio", "timm"} & ({r.name for r in requirements()} | set(constraints()))


def test_versions_agree() -> None:
    assert f"## {unisono.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert sys.version_info >= tuple(int(n) for n in PROJECT["project"]["requires-python"].removeprefix(">=").split("."))


def test_every_file_beside_the_code_is_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    endings = {Path(p).suffix or Path(p).name for p in patterns} | {"py.typed"}
    package = ROOT / "src" / "unisono"
    beside = [p for p in package.rglob("*") if p.is_file() and p.suffix not in {".py", ".pyc", ".pyi"}]
    assert len(beside) > 5
    assert not [p for p in beside if p.suffix not in endings and p.name not in endings]
    nested = [p.relative_to(package) for p in beside if not (p.parent / "__init__.py").is_file()]
    assert {p.parts[0] for p in nested} <= {"recipes", "templates"}


def test_hooks_run_what_is_installed_and_fetch_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    assert {h["language"] for h in hooks["repos"][0]["hooks"]} == {"system"}
