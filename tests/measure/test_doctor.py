"""The diagnosis of this installation, and of one made of files in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from resdeploy.measure.doctor import State, diagnosis


def test_this_installation_is_sound() -> None:
    """It runs these tests, so what it always needs and what they need is there."""
    found = diagnosis()
    states = {(package.extra, package.name): package.state for package in found.packages}
    assert {name for extra, name in states if extra == ""} >= {"torch", "onnx-ir", "pillow"}
    for (extra, name), state in states.items():
        assert state is not State.BROKEN, name
        if extra in ("", "cpu", "report", "test"):
            assert state is State.INSTALLED, name
    assert found.problems == ()
    assert found.weight_bits in (7, 8)


def distribution(folder: Path, name: str, *, files: str = "", metadata: str = "") -> None:
    """The metadata of an installed package, of which only the metadata is there."""
    info = folder / f"{name.replace('-', '_')}-9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n{metadata}")
    (info / "RECORD").write_text(files)


@pytest.fixture
def other_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of the path where resdeploy needs packages in every state."""
    needs = "".join(
        f"Requires-Dist: {line}\n"
        for line in (
            *("sound>=1", "absent>=2.0", "half>=1", "linter"),
            *('optional[all]>=3; extra == "gpu"', 'half-too; extra == "gpu"'),
        )
    )
    distribution(tmp_path, "resdeploy", metadata=needs)
    (tmp_path / "sound.py").write_text("")
    distribution(tmp_path, "sound", files="sound.py,,\n")
    distribution(tmp_path, "half", files="half/__init__.py,,\n")
    distribution(tmp_path, "half-too", files="half-too/__init__.py,,\n")
    distribution(tmp_path, "linter", files="../../../bin/linter,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("other_installation")
def test_every_state_a_package_can_be_in() -> None:
    found = diagnosis()
    assert [(package.name, package.extra, package.state.value) for package in found.packages] == [
        ("sound", "", "installed"),
        ("absent", "", "missing"),
        ("half", "", "broken"),
        ("linter", "", "installed"),
        ("optional", "gpu", "missing"),
        ("half-too", "gpu", "broken"),
    ]
    by_name = {package.name: package for package in found.packages}
    assert (by_name["sound"].version, by_name["sound"].fix) == ("9.0", "")
    assert by_name["absent"].fix == "pip install 'resdeploy'"
    assert by_name["optional"].fix == "pip install 'resdeploy[gpu]'"
    assert by_name["optional"].version is None
    problems = [problem.split(":")[0] for problem in found.problems]
    assert problems == ["absent is missing", "half is broken", "half-too is broken"]


def test_two_packages_that_overwrite_each_other(other_installation: Path) -> None:
    distribution(other_installation, "onnxruntime-gpu")
    distribution(other_installation, "onnxruntime")
    assert "onnxruntime and onnxruntime-gpu are both installed" in diagnosis().problems[-1]


def test_a_diagnosis_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from resdeploy.measure.doctor import diagnosis; diagnosis(); "
        "print({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert said.strip() == "set()"
