"""This installation in, what is there and what is missing out; nothing heavy is imported."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict
from enum import StrEnum
from importlib.util import find_spec

from resdeploy.measure.machine import machine_facts, weight_bits_for
from resdeploy.records import MachineFacts, Record

# Where the module is not called like its distribution, with underscores for dashes.
_MODULES = {
    "pillow": "PIL",
    "onnxruntime-gpu": "onnxruntime",
    "nvidia-ml-py": "pynvml",
    "tensorrt-rtx-cu13": "tensorrt_rtx",
    "pytest-xdist": "xdist",
}


class State(StrEnum):
    """Whether a package can be used."""

    INSTALLED = "installed"
    MISSING = "missing"
    BROKEN = "broken"  # its files are there in part: metadata without a module


class PackageState(Record):
    """A package that resdeploy can use; `extra` is empty for what it always needs."""

    name: str
    extra: str
    version: str | None
    state: State
    fix: str


class Diagnosis(Record):
    """Machine, packages, and sentences about what is wrong."""

    machine: MachineFacts
    weight_bits: int
    weight_bits_reason: str
    packages: tuple[PackageState, ...]
    problems: tuple[str, ...]


def diagnosis() -> Diagnosis:
    """What is installed here, read from package metadata."""
    machine = machine_facts()
    bits = weight_bits_for(machine)
    packages = tuple(
        _state(name, extra) for extra, names in _requirements().items() for name in names
    )
    return Diagnosis(
        machine=machine,
        weight_bits=bits.bits,
        weight_bits_reason=bits.reason,
        packages=packages,
        problems=_problems(packages),
    )


def _requirements() -> dict[str, list[str]]:
    """Package names by extra, from our own metadata."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in importlib.metadata.requires("resdeploy") or ():
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        found[extra[1] if extra else ""].append(name)
    return dict(found)


def _state(name: str, extra: str) -> PackageState:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    module = _MODULES.get(name, name.replace("-", "_"))
    state = State.MISSING if version is None else State.INSTALLED
    if version is not None and find_spec(module) is None:
        # Tools such as ruff are programs without a module.
        has_modules = any(
            str(path).endswith("__init__.py") for path in importlib.metadata.files(name) or ()
        )
        state = State.BROKEN if has_modules else State.INSTALLED
    fix = "" if state is State.INSTALLED else f"pip install 'resdeploy{f'[{extra}]' * bool(extra)}'"
    return PackageState(name=name, extra=extra, version=version, state=state, fix=fix)


def _problems(packages: tuple[PackageState, ...]) -> tuple[str, ...]:
    problems = [
        f"{package.name} is {package.state.value}: {package.fix}"
        for package in packages
        if (package.extra == "" and package.state is not State.INSTALLED)
        or package.state is State.BROKEN
    ]
    both = ("onnxruntime", "onnxruntime-gpu")
    if all(_is_installed(name) for name in both):
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install one"
        )
    return tuple(problems)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
