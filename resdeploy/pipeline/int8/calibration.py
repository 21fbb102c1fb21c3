"""A float artifact and images in, its calibration table out; or one that was made before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import Artifact, scratch_folder
from resdeploy.contracts import Batch, Notify, Progress, Source
from resdeploy.errors import GraphError, VerificationError
from resdeploy.graph import EMITTERS
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.observe import with_observations
from resdeploy.graph.qdq.editor import observed_tensors, rules_of
from resdeploy.pipeline.feeding import fed, image_facts
from resdeploy.quantization.audit import require_enough, warnings_of
from resdeploy.quantization.calibrate import calibrate
from resdeploy.quantization.table import CalibrationTable, merged, read_table, table_of
from resdeploy.records import Manifest, Preprocess

# Images on their way through a graph. Each takes memory: of a resnet50 0.79 GB with one, 0.80 with
# two, 0.86 with four, 0.96 with eight.
_AT_ONCE = 4


def table_for(
    source: Artifact,
    manifest: Manifest,
    preprocess: Preprocess,
    data: Source,
    *,
    threads: int,
    progress: Progress,
) -> CalibrationTable:
    """Run each image through the float graph, and keep what every target needs.

    Several images are on their way at once, with as few threads to each as there are: that leaves
    no core waiting in the many small steps that the observations are.

    Raises:
        GraphError: no target quantizes anything of the graph.
        DataError: there are too few images, or one leads to NaN or infinity.
    """
    model = read_model(source.path)
    observed = with_observations(model, _tensors(model), image_facts(manifest))
    labels: Counter[int] = Counter()
    with scratch_folder() as folder:
        path = folder / "observed.onnx"
        write_model(model, path)
        del model
        each = -(-threads // _AT_ONCE)
        with runtimes.OrtRunner(path, threads=each) as runner:
            batches = progress(data.batches(preprocess, 1), "calibrating", data.facts().samples)
            found = calibrate(
                lambda images: runner.run_all(fed(images, manifest)),
                {row.name: row.channels for row in observed},
                _counted(batches, labels),
                data.hashes(),
                workers=threads // each,
            )
    facts = data.facts()  # once the images are read, it is known which of them are broken
    per_class = {
        facts.classes[label] if facts.classes else str(label): count
        for label, count in sorted(labels.items())
    }
    table = table_of(found, source.sha256, facts, per_class)
    require_enough(table.header.audit)
    return table


def _tensors(model: ir.Model) -> tuple[str, ...]:
    """Every tensor that some target wants to round, in the order of the first that does."""
    names: dict[str, None] = {}
    for row in EMITTERS:
        names |= dict.fromkeys(observed_tensors(model, rules_of(row)))
    if not names:
        raise GraphError(
            "the graph has no operator that can be quantized for any target",
            hint="convolutions and matrix products with constant weights can",
        )
    return tuple(names)


def _counted(batches: Iterable[Batch], labels: Counter[int]) -> Iterator[Batch]:
    """The batches, their labels counted."""
    for batch in batches:
        if batch.labels is not None:
            labels.update(batch.labels.tolist())
        yield batch


def tell_audit(table: CalibrationTable, notify: Notify) -> None:
    """Say what is to be known before relying on a table."""
    for warning in warnings_of(table.header.audit):
        notify(warning)


def opened_table(paths: Sequence[Path], source: Artifact) -> CalibrationTable:
    """The tables in files, merged, if they are of this graph.

    Raises:
        ArtifactError: a file is no calibration table.
        VerificationError: it is of another graph.
        DataError: they cannot be merged.
    """
    table = merged([read_table(path) for path in paths])
    require_same_graph(table, source)
    return table


def require_same_graph(table: CalibrationTable, source: Artifact) -> None:
    """Refuse a table of another graph.

    Raises:
        VerificationError: it is one.
    """
    made_for = table.header.graph_sha256
    if made_for != source.sha256:
        raise VerificationError(
            f"the calibration table was made for graph {made_for[:12]}…, "
            f"this one is {source.sha256[:12]}…",
            hint="calibrate this graph",
        )
