"""What a run needs before anything of it is done, and what it stores on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from resdeploy.contracts import Source
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.plan import Plan
from resdeploy.records import Baseline, Document, DriftRecord, LayersRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan, the model and the images it needs, before anything is done.

    load_seconds: how long it took to make the model.
    """

    plan: Plan
    loaded: LoadedModel
    load_seconds: float
    calibration: Source | None
    evaluation: Source
    baseline: Baseline | None


class DriftRecords(Document):
    """The drift of every stage of a run, as one stored file; pictures as RunResult has them."""

    kind: Literal["drift"] = "drift"
    records: tuple[DriftRecord, ...]
    pictures: dict[str, str] = Field(default_factory=dict)


class LayersRecords(Document):
    """The layers of targets of a run, as one stored file; gaps as RunResult has them."""

    kind: Literal["layers"] = "layers"
    records: tuple[LayersRecord, ...]
    gaps: dict[str, str]
