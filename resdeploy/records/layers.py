"""How far each layer of an artifact is from the same layer of the reference."""

from __future__ import annotations

from resdeploy.records.base import Record
from resdeploy.records.inputs import DataFacts
from resdeploy.records.measurements import DriftRecord, Measured


class LayerDrift(Record):
    """A tensor of a graph, and the same tensor of the reference, on the same images.

    name, kind: the module that makes it, and its class; a BatchNorm that was folded into it is
    part of it. tensor: its name in the graph. operators: of the nodes between it and the tensors
    before it, rounding aside. reads: the layers that give these; `images` where it reads them.

    sqnr_db: 10·log10(Σ reference² / Σ (tensor − reference)²) as the graph runs, null where the two
    are identical. own_sqnr_db: the same where the layer is fed with the reference's own inputs, so
    that the noise is its own alone; the rounding of its inputs to integers is part of that.
    fall_db: how much lower `sqnr_db` is than that of the worst of its inputs; null where the
    images are the only ones, or a figure is. nonfinite: whether it, or what is made of the
    reference's inputs, has NaN or infinity; these figures are then null.
    """

    name: str
    kind: str
    tensor: str
    operators: tuple[str, ...]
    reads: tuple[str, ...]
    sqnr_db: float | None
    own_sqnr_db: float | None
    fall_db: float | None
    nonfinite: bool = False


class LayersRecord(Measured):
    """The layers of an artifact in the order of its graph, and which adds the most noise.

    runtime: who computed the tensors: every node as the file says, none fused with another, and
    float16 rounded after each.
    worst_layer: the one of the least `own_sqnr_db`; null where no layer adds any.
    unpaired: modules whose tensor has no certain partner in the graph, so that it was not compared;
    their work is part of the next layer that has one.

    answers_sqnr_db: of the answers so computed, against the reference. agreement_sqnr_db: of the
    answers of `drift.runtime`, the artifact's own, against these; null where they are identical.
    nonfinite: whether the answers so computed have NaN or infinity; both figures are then null.
    drift: of its own answers.
    """

    runtime: str
    sha256: str
    data: DataFacts
    trained: bool
    samples: int
    layers: tuple[LayerDrift, ...]
    unpaired: tuple[str, ...]
    worst_layer: str | None
    answers_sqnr_db: float | None
    agreement_sqnr_db: float | None
    nonfinite: bool = False
    drift: DriftRecord
