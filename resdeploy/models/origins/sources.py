"""Whose code a model is made of: the name of its module enters, a digest of its sources leaves."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from resdeploy.artifact import digest_of, sha256_of_file

OURS = "resdeploy"  # whose version stands in every key
SITES = frozenset({"site-packages", "dist-packages"})


def digest_of_sources(module: str) -> str:
    """Hex sha256 over names and contents of the loaded modules that a model may be made of.

    These are the modules of `module`'s top-level package, wherever it is installed, and those
    in the working directory that are not installed packages. Code that has not run yet is not
    loaded, and not in it: ask after the model has answered.
    """
    package = module.partition(".")[0]
    sources = []
    for name, loaded in sorted(sys.modules.items()):
        file = file_of(loaded)
        top = name.partition(".")[0]
        if file is None or not (top == package or (top != OURS and is_in_working_directory(file))):
            continue
        sources.append([name, sha256_of_file(file)])
    return digest_of(sources)


def file_of(module: ModuleType) -> Path | None:
    """Where the code of a loaded module lies, if it lies in a file."""
    # Not by getattr, which makes modules that load themselves late do so.
    name = getattr(module, "__dict__", {}).get("__file__")
    path = Path(name).resolve() if isinstance(name, str) else None
    return path if path is not None and path.is_file() else None


def is_in_working_directory(file: Path) -> bool:
    """Whether a file lies there, and not in the environment that packages are installed into.

    An environment may lie in the working directory, as .venv often does, and the working
    directory in that of the system, such as /usr/src/app in /usr.
    """
    here = Path(os.getcwd()).resolve()
    if not file.is_relative_to(here) or SITES & set(file.relative_to(here).parts):
        return False
    libraries = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    environments = [
        path for path in (sys.prefix, sys.base_prefix) if not here.is_relative_to(_whole(path))
    ]
    return not any(file.is_relative_to(_whole(path)) for path in (*libraries, *environments))


def _whole(path: str) -> Path:
    return Path(path).resolve()
