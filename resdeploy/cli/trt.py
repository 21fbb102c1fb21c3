"""`resdeploy trt`: a model or an ONNX file in, a TensorRT engine out."""

from __future__ import annotations

from typing import Annotated

import typer

from resdeploy.cli.export import batch_profile, print_artifact
from resdeploy.cli.flags import EngineFlags, InputOptions, ModelFlags, QuantizeFlags
from resdeploy.cli.options import DATA_METAVAR, OutputPath, Samples, SkipBroken, Tables, Weights
from resdeploy.cli.output import Output
from resdeploy.errors import UsageError
from resdeploy.words import FloatType, OnBroken

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|IN.onnx",
        help="A model, or an ONNX file; without --fp16 and --int8 it is compiled as it is.",
        show_default=False,
    ),
]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Weights and arithmetic in float16.")]
Int8 = Annotated[bool, typer.Option("--int8", help="Convolutions in INT8, calibrated on --data.")]
Rest = Annotated[FloatType, typer.Option(help="Of --int8: what everything else is in.")]
BackendName = Annotated[
    str,
    typer.Option(
        metavar="tensorrt|rtx",
        help="TensorRT needs the GPU that the engine is for; TensorRT-RTX none.",
    ),
]
Batches = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N|MIN:OPT:MAX",
        help="Batch sizes it is for, and the one it is tuned for; may be repeated. "
        "[default: 1:1:32]",
        show_default=False,
    ),
]
CalibrationData = Annotated[
    str | None,
    typer.Option(
        metavar=DATA_METAVAR,
        help="Of --int8: the images to calibrate on, 100 or more.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds after which the compiler is stopped.")]


def trt(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    engine: EngineFlags,
    how: QuantizeFlags,
    model: Source,
    fp16: Fp16 = False,
    int8: Int8 = False,
    int8_rest: Rest = FloatType.FP16,
    backend: BackendName = "tensorrt",
    batch: Batches = None,
    weights: Weights = None,
    data: CalibrationData = None,
    table: Tables = None,
    samples: Samples = None,
    skip_broken: SkipBroken = False,
    timeout: Timeout = 3600,
    output: OutputPath = None,
) -> None:
    """Compile a model, or an ONNX file, to a TensorRT engine, its precision checked."""
    if fp16 and int8:
        raise UsageError(
            "--fp16 and --int8 exclude each other",
            hint="--int8 leaves in float16 what is not INT8, unless --int8-rest fp32",
        )
    profiles = tuple(batch_profile(text) for text in batch or ())
    with out.working(f"exporting and compiling {model}"):
        from resdeploy.pipeline.engine import Images
        from resdeploy.pipeline.engine import trt as compiled

        made = compiled(
            model,
            precision=_precision(fp16=fp16, int8=int8, rest=int8_rest),
            backend=backend,
            engine=engine.options(profiles),
            images=Images(
                data=data,
                tables=table or (),
                samples=samples,
                on_broken=OnBroken.SKIP if skip_broken else OnBroken.STOP,
            ),
            how=how.options(),
            weights=weights,
            options=flags.options(),
            choice=image.choice(),
            timeout_s=timeout,
            output=output,
            notify=out.notify,
            progress=out.progress,
        )
    where = None if made.table is None else str(made.table)
    print_artifact(out, "trt", made.artifact, table=where)


def _precision(*, fp16: bool, int8: bool, rest: FloatType) -> str | None:
    """What is asked for; None is whatever the model or the file has."""
    if int8:
        return "int8-fp16" if rest is FloatType.FP16 else "int8"
    return "fp16" if fp16 else None
