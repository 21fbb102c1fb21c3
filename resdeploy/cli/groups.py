"""Options that several commands share, each written once.

A command is a function whose parameters may be of a type in `_GROUPS`: the type's options
are put in the parameter's place, and the function gets the value made of them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from resdeploy.cli.flags import (
    ROUNDS,
    WARMUP,
    BoundFlags,
    CastFlags,
    EngineFlags,
    ExportFlags,
    InputOptions,
    ModelFlags,
    QuantizeFlags,
    TimingFlags,
    TrtexecFlags,
)
from resdeploy.cli.output import Output
from resdeploy.errors import UsageError
from resdeploy.words import (
    FloatType,
    HardwareCompatibility,
    Head,
    Interpolation,
    NormChoice,
    WeightBitsChoice,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Options by parameter name, as (type and typer.Option, default), and what they make."""

    options: dict[str, tuple[Any, Any]]
    value: Callable[..., Any]


def _output(*, as_json: bool, quiet: bool, verbose: bool, debug: bool) -> Output:
    return Output(as_json=as_json, quiet=quiet, verbose=verbose)


def _input(
    *,
    size: int | None,
    crop_pct: float | None,
    interpolation: Interpolation | None,
    mean: str | None,
    std: str | None,
) -> InputOptions:
    return InputOptions(
        size=size,
        crop_pct=crop_pct,
        interpolation=interpolation,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
    )


def _option(kind: Any, help_text: str, **limits: Any) -> tuple[Any, None]:
    return Annotated[kind, typer.Option(help=help_text, show_default=False, **limits)], None


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} is {text!r}; numbers with commas between them are needed",
            hint=f"{option} 0.485,0.456,0.406",
        ) from error


def _flag(name: str, help_text: str) -> tuple[Any, Any]:
    return Annotated[bool, typer.Option(name, help=help_text)], False


def _either(name: str, help_text: str) -> tuple[Any, None]:
    """An option to say yes or no to, or neither."""
    names = f"--{name}/--no-{name}"
    return Annotated[bool | None, typer.Option(names, help=help_text, show_default=False)], None


_GROUPS: dict[type, _Group] = {
    Output: _Group(
        options={
            "as_json": _flag("--json", "Print one JSON document to stdout."),
            "quiet": _flag("--quiet", "No progress and no verdict tables."),
            "verbose": _flag("--verbose", "Say what is being done."),
            "debug": _flag("--debug", "Show a traceback when something fails."),
        },
        value=_output,
    ),
    InputOptions: _Group(
        options={
            "size": (
                Annotated[int | None, typer.Option(min=1, help="Edge of the input in pixels.")],
                None,
            ),
            "crop_pct": (
                Annotated[
                    float | None,
                    typer.Option(min=0.01, max=1, help="Share of the resized edge kept."),
                ],
                None,
            ),
            "interpolation": (
                Annotated[Interpolation | None, typer.Option(help="Filter of the resize.")],
                None,
            ),
            "mean": (
                Annotated[str | None, typer.Option(help="Per channel, with commas.")],
                None,
            ),
            "std": (
                Annotated[str | None, typer.Option(help="Per channel, with commas.")],
                None,
            ),
        },
        value=_input,
    ),
    ModelFlags: _Group(
        options={
            "num_classes": _option(int | None, "Classes, where weights do not say.", min=1),
            "in_channels": _option(int | None, "Channels, where weights do not say.", min=1),
            "norm": _option(NormChoice | None, "Build with this norm instead."),
            "width": _option(float | None, "Factor on all channels.", min=0.01),
            "output_stride": _option(int | None, "8, 16 or 32: dilate, not stride, beyond."),
        },
        value=ModelFlags,
    ),
    ExportFlags: _Group(
        options={
            "exporter": (
                Annotated[
                    str,
                    typer.Option(
                        metavar="auto|trace|dynamo|both",
                        help="Of ONNX: the first that is right, one of the two, or both side "
                        "by side.",
                    ),
                ],
                "auto",
            ),
            "opset": _option(
                int | None,
                "Of ONNX. [default: 20, the newest that ONNX Runtime, TensorRT and OpenVINO take]",
                min=1,
            ),
            "head": (Annotated[Head, typer.Option(help="What the file gives.")], Head.LOGITS),
            "embed_preprocess": _flag(
                "--embed-preprocess", "Take uint8 [N, H, W, 3] pixels, RGB; normalise inside."
            ),
        },
        value=ExportFlags,
    ),
    CastFlags: _Group(
        options={
            "io": (
                Annotated[
                    FloatType, typer.Option(help="Of a float16 graph: type of input and output.")
                ],
                FloatType.FP32,
            ),
            "keep": _option(
                list[str] | None,
                "Of a float16 graph: leave nodes of this name or operator type in float32; "
                "may be repeated.",
                metavar="NODE|OPERATOR",
            ),
        },
        value=CastFlags,
    ),
    QuantizeFlags: _Group(
        options={
            "method": (
                Annotated[
                    str,
                    typer.Option(
                        metavar="mse|minmax|percentile|entropy",
                        help="How much of each tensor's range is kept.",
                    ),
                ],
                "mse",
            ),
            "weight_bits": (
                Annotated[
                    WeightBitsChoice,
                    typer.Option(help="Bits of INT8 weights; auto: 8 with VNNI, 7 without."),
                ],
                WeightBitsChoice.AUTO,
            ),
            "no_pixel_grid": _flag(
                "--no-pixel-grid", "Do not put the steps of the images onto those of their pixels."
            ),
            "no_equalize": _flag(
                "--no-equalize", "Do not even out channels of very different range."
            ),
            "no_round_weights": _flag(
                "--no-round-weights", "Round weights to the nearest, not for the images."
            ),
            "no_correct_bias": _flag(
                "--no-correct-bias", "Leave the mean of each layer's error in its answer."
            ),
            "keep": _option(
                list[str] | None,
                "Leave the node of this name in float; may be repeated.",
                metavar="NODE",
            ),
        },
        value=QuantizeFlags,
    ),
    EngineFlags: _Group(
        options={
            "workspace_mib": _option(
                int | None, "Memory a kernel may use, MiB. [default: all of the GPU's]", min=1
            ),
            "optimization_level": (
                Annotated[
                    int,
                    typer.Option(min=0, max=5, help="0 compiles quickly, 5 searches longest."),
                ],
                3,
            ),
            "compute_capability": _option(
                list[str] | None,
                "Of rtx: 7.5, 8.0, 8.6, 8.9, 12.0 or 12.1; may be repeated. [default: all but 7.5]",
                metavar="N.N",
            ),
            "hardware_compatibility": (
                Annotated[
                    HardwareCompatibility,
                    typer.Option(help="Of tensorrt: other GPUs that may run it; slower."),
                ],
                HardwareCompatibility.NONE,
            ),
            "version_compatible": _flag(
                "--version-compatible", "Of tensorrt: later versions of it may run it."
            ),
            "refit": _flag(
                "--refit", "Of tensorrt: its weights can be exchanged later; not of INT8."
            ),
            "strip_plan": _flag(
                "--strip-plan",
                "Of tensorrt: leave the weights in an ONNX file beside it, for several engines.",
            ),
        },
        value=EngineFlags,
    ),
    TimingFlags: _Group(
        options={
            "batch": (Annotated[str, typer.Option(help="Batch sizes, with commas.")], "1"),
            "rounds": (
                Annotated[int, typer.Option(min=5, help="Timed inferences of each.")],
                ROUNDS,
            ),
            "warmup": (
                Annotated[
                    int,
                    typer.Option(
                        min=1, help="Untimed inferences of each, first; more until it is steady."
                    ),
                ],
                WARMUP,
            ),
            "threads": (Annotated[int, typer.Option(min=0, help="0 takes all cores.")], 0),
            "against": _option(
                list[str] | None,
                "Ways of PyTorch's to beat, beside eager; the speed-up is over the fastest. May be "
                "repeated.",
                metavar="channels-last|compile|torchscript",
            ),
            "concurrency": _option(
                int | None,
                "Instead: how many images so many sessions of each answer at once, the threads "
                "shared among them.",
                min=1,
            ),
            "fixed_batch": _flag(
                "--fixed-batch",
                "Of ONNX files: time each a second time with its batch fixed, to see what an open "
                "one costs.",
            ),
            "split": _flag(
                "--split",
                "Of engines: time a batch in parts that is larger than their profiles hold; "
                "without it, it is refused.",
            ),
        },
        value=TimingFlags,
    ),
    TrtexecFlags: _Group(
        options={
            "as_trtexec": _option(
                str | None,
                "Of engines alone: what trtexec of that version measures, by events of the GPU.",
                metavar="10|11",
            ),
            "transfers": _either(
                "transfers", "Of --as-trtexec: whether copies to and from the GPU count."
            ),
            "cuda_graph": _either("cuda-graph", "Of --as-trtexec: launch by CUDA graphs."),
            "spin": _either("spin", "Of --as-trtexec: poll for the answer instead of sleeping."),
        },
        value=TrtexecFlags,
    ),
    BoundFlags: _Group(
        options={
            "max_drop": _option(
                float | None,
                "Leave layers in float until top-1 drops by no more; else exit code 1.",
                metavar="FRACTION",
            ),
            "min_agreement": _option(
                float | None,
                "Leave layers in float until so many images keep their class; else exit code 1.",
                metavar="FRACTION",
            ),
            "evaluation": _option(
                str | None,
                "Of --max-drop and --min-agreement: the images to hold them on, none of --data.",
                metavar="DATA",
            ),
        },
        value=BoundFlags,
    ),
}


def command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Register `function` under its own name, its option groups spelled out."""
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    groups = {name: _GROUPS[hint] for name, hint in hints.items() if hint in tuple(_GROUPS)}

    @functools.wraps(function)
    def spelled_out(**given: Any) -> None:
        for name, group in groups.items():
            options = {option: given.pop(option) for option in group.options}
            given[name] = group.value(**options)
        # A user's model may print when it is made or run, and would do so into the product.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                function(**given)
            finally:
                for value in given.values():
                    if isinstance(value, Output):
                        value.close()

    own = inspect.signature(function).parameters
    parameters = [
        own[name].replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
        for name, hint in hints.items()
        if name not in groups
    ]
    # Groups come last in the help; the command's own arguments and options are read first.
    parameters += [
        inspect.Parameter(
            option, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
        )
        for group in sorted(groups.values(), key=lambda group: group is _GROUPS[Output])
        for option, (annotation, default) in group.options.items()
    ]
    vars(spelled_out).pop("__wrapped__")
    vars(spelled_out)["__signature__"] = inspect.Signature(parameters)
    spelled_out.__annotations__ = {item.name: item.annotation for item in parameters}
    app.command(name=function.__name__.rstrip("_"))(spelled_out)
