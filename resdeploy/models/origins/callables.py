"""A user's own models: `package.module:callable` enters, its blueprint leaves.

This is the one place that imports code of the user's. The working directory is first on the
import path meanwhile, as with `python -m`, and last afterwards: a module may import more when
it runs, but nothing of ours is to be found there instead.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from resdeploy.errors import (
    ResdeployError,
    UnknownNameError,
    UsageError,
    WeightsError,
    listed,
    near_names,
)
from resdeploy.models.origins.blueprint import Made, Published, refuse_family_options, seeded
from resdeploy.models.origins.sources import (
    digest_of_sources,
    file_of,
    is_in_working_directory,
)
from resdeploy.models.origins.table import ORIGINS
from resdeploy.models.weights.checkpoint import Checkpoint
from resdeploy.models.weights.hub import preprocess_of
from resdeploy.records import ModelOptions, Preprocess

IMAGENET = Preprocess(size=224, resize=256, crop=224)
AS_USUAL = (
    "{model} does not say how its images are prepared: ImageNet's usual way is taken (256 to 224 "
    "pixels, bilinear); --size, --crop-pct, --interpolation, --mean and --std say otherwise, or "
    "an attribute `preprocess` of the module"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallableBlueprint:
    """Something that returns a module when it is called, by its name."""

    reference: str
    options: ModelOptions
    has_own_weights: bool = True

    def make(self, seed: int | None) -> Made:
        """What the callable returns: float32, on the CPU.

        Raises:
            UsageError: the callable does not exist, does not take what was asked for, or does
                not return such a module.
            ResdeployError: the code raised an error.
        """
        with _user_code(self.reference):
            with seeded(seed or 0):  # modules draw, too, and only when they are first imported
                function, notes = _found(self.reference)
            arguments = self._arguments(function)
            with seeded(seed or 0):
                made: object = function(**arguments)
        module = _checked(made, self.reference)
        declared = _declared(module, self.reference)
        found = declared or _of_timm_s_config(module)
        return Made(
            module=module.cpu().eval(),
            preprocess=found or IMAGENET,
            in_channels=self.options.in_channels or _in_channels(module, declared),
            num_classes=None,
            notes=notes if found else (*notes, AS_USUAL.format(model=self.reference)),
        )

    def fitted(self, checkpoint: Checkpoint) -> CallableBlueprint:
        """The same: only its author knows how the callable makes other shapes."""
        return self

    def pretrained(self) -> str:
        """Nothing."""
        raise WeightsError(
            f"nobody knows of pretrained weights for {self.reference}",
            hint="'own' takes the weights that it loads itself; or name a file or hf:ORG/REPO",
        )

    def published(self) -> dict[str, Published]:
        """Nothing."""
        return {}

    def code(self) -> str:
        """A digest of the sources that are the user's own."""
        return digest_of_sources(self.reference.partition(":")[0])

    def _arguments(self, function: Callable[..., Any]) -> dict[str, int]:
        """The options, as keyword arguments that the callable must have."""
        asked = {
            name: getattr(self.options, name)
            for name in ("num_classes", "in_channels")
            if getattr(self.options, name) is not None
        }
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:  # of some functions written in C; calling it will show
            return asked
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        names = {parameter.name for parameter in parameters}
        for name, number in asked.items():
            if name not in names and not takes_any:
                raise UsageError(
                    f"{name} is {number}, but {self.reference} takes no such argument",
                    hint=f"give it a keyword argument {name}, or leave the option out",
                )
        return asked


def blueprint_of(reference: str, options: ModelOptions) -> CallableBlueprint:
    """The blueprint of `package.module:callable`; nothing is imported yet.

    Raises:
        UsageError: it is not of this form, or an option that only our own models have.
    """
    module, _, name = reference.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{reference!r} is no model reference",
            hint=f"a model is written {' or '.join(row.form for row in ORIGINS)}",
        )
    refuse_family_options(options, reference)
    return CallableBlueprint(reference=reference, options=options)


# --- running the code -------------------------------------------------------------------


@contextlib.contextmanager
def _user_code(reference: str) -> Iterator[None]:
    """Errors of ours pass; any other one, and a call of sys.exit, becomes one that says whose."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    except ResdeployError:
        raise
    except (Exception, SystemExit) as error:
        raise ResdeployError(
            f"{reference}: its code raised {_shown(error)}",
            hint="the error is in that code, or in what it needs; --debug shows where",
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # the code may have tidied it away itself
            sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _found(reference: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The callable, and a note where its module lies in the working directory."""
    module_name, _, name = reference.partition(":")
    module = _imported(module_name, reference)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            callables = [key for key, item in vars(module).items() if callable(item)]
            raise UnknownNameError(f"callable of {module_name}", name, callables)
        value = getattr(value, part)
    if not callable(value) or isinstance(value, nn.Module):
        raise UsageError(
            f"{reference} is a {type(value).__name__}, not a function that returns a module",
            hint=f"write one: def build(): return {name}",
        )
    file = file_of(module)
    if file is None or not is_in_working_directory(file):
        return value, ()
    return value, (f"{module_name} was found in the working directory: {file}",)


def _imported(name: str, reference: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise  # the module is there, and needs another one that is not
        raise UsageError(
            f"there is no module {missing} for the model {reference}, neither in the working "
            f"directory {os.getcwd()} nor among the installed packages",
            hint=_meant(name, reference),
        ) from error


def _meant(name: str, reference: str) -> str:
    """What somebody who names a module that does not exist may have had in mind."""
    near = near_names(name, [row.prefix for row in ORIGINS if row.prefix])
    if near:
        return f"did you mean {near[0]}:{reference.partition(':')[2]}?"
    if name.endswith(".py"):
        return f"name the module, not the file: {reference.replace('.py:', ':', 1)}"
    return "go to the folder that its package lies in, or install it"


# --- what came back ---------------------------------------------------------------------


def _checked(made: object, reference: str) -> nn.Module:
    """The module, if it is one that can be exported from here."""
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"{reference} returned a {type(made).__name__}, not a torch.nn.Module",
            hint="let it return the module itself, not its state_dict or a tuple",
        )
    tensors = _tensors(made, reference)
    unmade = [key for key, tensor in tensors.items() if tensor.is_meta]
    if unmade:
        raise UsageError(
            f"{reference} returned a module without memory: {listed(unmade, 3)} on the meta device",
            hint="let it return the module with its weights",
        )
    others = [
        f"{key} ({str(tensor.dtype).removeprefix('torch.')})"
        for key, tensor in tensors.items()
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32
    ]
    if others:
        raise UsageError(
            f"{reference} returned a module with {len(others)} tensors that are not float32: "
            f"{listed(others, 3)}",
            hint="let it return module.float(); precision is chosen when the model is exported",
        )
    return made


def _tensors(module: nn.Module, reference: str) -> dict[str, Tensor]:
    """The state dict, if it is made of tensors; that of a quantized module is not."""
    state: dict[str, object] = module.state_dict()
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    others = [f"{key} ({type(state[key]).__name__})" for key in state if key not in tensors]
    if others:
        raise UsageError(
            f"{reference} returned a module whose state_dict holds {len(others)} entries that "
            f"are no tensors: {listed(others, 3)}",
            hint="let it return the float module; `resdeploy quantize` makes integers of it",
        )
    return tensors


def _in_channels(module: nn.Module, declared: Preprocess | None) -> int:
    """The channels of the images that are declared, else those of the first convolution."""
    if declared is not None:
        return len(declared.channels)
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return len(IMAGENET.channels) if first is None else first.in_channels


def _declared(module: nn.Module, reference: str) -> Preprocess | None:
    """The module's attribute `preprocess`, where it is a record or has the fields of one."""
    own = getattr(module, "preprocess", None)
    if isinstance(own, Preprocess):
        return own
    if not isinstance(own, Mapping):
        return None
    try:
        return Preprocess.model_validate(dict(own))
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise UsageError(
            f"the attribute preprocess of {reference} cannot be: {reasons}",
            hint=f"its keys are {listed(Preprocess.model_fields)}",
        ) from error


def _of_timm_s_config(module: nn.Module) -> Preprocess | None:
    """What timm wrote into a module; of its channels before they were changed, so not of those."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        if isinstance(config, Mapping):
            found = preprocess_of({"pretrained_cfg": dict(config)})
            if found is not None:
                return found
    return None
