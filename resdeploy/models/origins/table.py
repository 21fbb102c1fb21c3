"""The origins of models, one row each. A reference enters, its blueprint leaves. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from resdeploy.errors import MissingExtraError, ResdeployError
from resdeploy.records import ModelOptions
from resdeploy.table import Table, load_target

if TYPE_CHECKING:
    from resdeploy.models.origins.blueprint import Blueprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where models come from.

    form: how a reference to one of them is written.
    prefix: what stands before the colon of every such reference; None where nothing does, and
        where it is the name of some module.
    target: "module:function" of (name, options) that gives a Blueprint; `name` is what
        follows the prefix, or the whole reference where there is none.
    package: what must be installed for it, if anything.
    """

    name: str
    form: str
    target: str
    prefix: str | None = None
    package: str | None = None


_HERE = "resdeploy.models.origins"

ORIGINS = Table(
    "model origin",
    (
        Origin(name="family", form="NAME", target=f"{_HERE}.family:blueprint_of"),
        Origin(
            name="timm",
            form="timm:NAME",
            prefix="timm",
            target=f"{_HERE}.timm_models:blueprint_of",
            package="timm",
        ),
        Origin(
            name="torchvision",
            form="torchvision:NAME",
            prefix="torchvision",
            target=f"{_HERE}.torchvision_models:blueprint_of",
            package="torchvision",
        ),
        Origin(
            name="callable",
            form="package.module:callable",
            target=f"{_HERE}.callables:blueprint_of",
        ),
    ),
)


def origin_of(reference: str) -> Origin:
    """The row that a model reference belongs to."""
    prefix, colon, _ = reference.partition(":")
    if not colon:
        return ORIGINS["family"]
    named = (row for row in ORIGINS if row.prefix == prefix)
    return next(named, ORIGINS["callable"])


def blueprint_of(reference: str, options: ModelOptions) -> Blueprint:
    """The blueprint that a model reference names.

    Raises:
        UnknownNameError: its origin has no model of this name.
        UsageError: an option makes no sense for it.
        MissingExtraError: its origin needs a package that is not installed.
        ResdeployError: that package cannot be imported.
    """
    row = origin_of(reference)
    try:
        make = load_target(row.target, extra="hub", why=f"the model {reference}")
    except MissingExtraError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        # torchvision, and timm with it, does not load beside a torch it was not built for.
        raise ResdeployError(
            f"cannot import {row.package}, which {reference} needs: {error}",
            hint=f"install versions that go together; here are {_installed()}",
        ) from error
    name = reference.partition(":")[2] if row.prefix else reference
    blueprint: Blueprint = make(name, options)
    return blueprint


def _installed() -> str:
    found = []
    for package in ("torch", "torchvision", "timm"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)
