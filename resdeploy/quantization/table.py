"""The calibration table: one safetensors file, made once, for every method and every target.

A header (JSON, in the metadata) says which graph and which images it is of; the statistics of
tensor number i are the arrays `i.low`, `i.high`, `i.zeros`, `i.positive`, `i.negative`, `i.first`
and `i.reach`. Tables of the same graph can be merged, and are then what one pass over the images
of both would have given.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from resdeploy.artifact import digest_of
from resdeploy.errors import ArtifactError, DataError
from resdeploy.quantization.audit import audit_of
from resdeploy.quantization.calibrate import Calibrated, joined
from resdeploy.quantization.statistics import TensorStatistics
from resdeploy.records import CalibrationHeader, DataFacts

_HEADER = "resdeploy"  # the key of the metadata
_PARTS = ("low", "high", "zeros", "positive", "negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """A header and what it heads; see `Calibrated`."""

    header: CalibrationHeader
    found: Calibrated

    @property
    def tensors(self) -> dict[str, TensorStatistics]:
        """The statistics by tensor."""
        return self.found.tensors


def table_of(
    found: Calibrated, graph_sha256: str, data: DataFacts, per_class: dict[str, int]
) -> CalibrationTable:
    """The table of a pass over the images; per_class: how many there were of each class."""
    header = CalibrationHeader(
        graph_sha256=graph_sha256,
        data=data,
        images=found.images,
        audit=audit_of(found, per_class, data.classes),
        tensors=tuple(found.tensors),
    )
    return CalibrationTable(header=header, found=found)


def table_bytes(table: CalibrationTable) -> bytes:
    """What the file of a table holds; equal tables give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, (name, found) in enumerate(table.tensors.items()):
        arrays |= {f"{index}.{part}": getattr(found, part) for part in _PARTS}
        arrays[f"{index}.first"] = np.array([found.first, found.images], np.int64)
        arrays[f"{index}.reach"] = table.found.reach[name]
    return save(arrays, metadata={_HEADER: table.header.to_json()})


def write_table(table: CalibrationTable, path: Path) -> None:
    """Write a table."""
    path.write_bytes(table_bytes(table))


def read_table(path: Path) -> CalibrationTable:
    """The table in a file.

    Raises:
        ArtifactError: no such file, or it is no calibration table.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = _header((file.metadata() or {}).get(_HEADER, ""), path)
            rows = {
                name: {part: file.get_tensor(f"{index}.{part}") for part in (*_PARTS, "first")}
                for index, name in enumerate(header.tensors)
            }
            reach = {
                name: file.get_tensor(f"{index}.reach") for index, name in enumerate(header.tensors)
            }
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} is no calibration table: {error}",
            hint="`resdeploy quantize` leaves one beside the INT8 file",
        ) from error
    tensors = {name: _statistics(name, row, path) for name, row in rows.items()}
    return CalibrationTable(
        header=header, found=Calibrated(tensors=tensors, images=header.images, reach=reach)
    )


def _statistics(name: str, row: dict[str, NDArray[Any]], path: Path) -> TensorStatistics:
    """What the arrays of one tensor hold.

    Raises:
        ArtifactError: they do not go together.
    """
    channels, bins = row["low"].shape, row["positive"].shape[-1:]
    wanted = {
        **dict.fromkeys(("low", "high", "zeros"), channels),
        **dict.fromkeys(("positive", "negative"), (*channels, *bins)),
        "first": (2,),
    }
    wrong = [part for part, shape in wanted.items() if row[part].shape != shape]
    if wrong:
        raise ArtifactError(
            f"{path} is damaged: {wrong[0]!r} of the tensor {name!r} is "
            f"{list(row[wrong[0]].shape)}",
            hint="make it again: quantize --data",
        )
    first, images = (int(number) for number in row["first"])
    return TensorStatistics(first=first, images=images, **{part: row[part] for part in _PARTS})


def _header(text: str, path: Path) -> CalibrationHeader:
    """The header, checked.

    Raises:
        ArtifactError: there is none, or it is of a schema that we do not know.
    """
    try:
        known = json.loads(text or "{}")
        if (
            isinstance(known, dict)
            and known.get("schema") == CalibrationHeader.model_fields["schema_version"].default
        ):
            return CalibrationHeader.model_validate_json(text)
    except (ValueError, ValidationError) as error:
        raise ArtifactError(f"{path} has a header that cannot be read: {error}") from error
    raise ArtifactError(
        f"{path} is no calibration table of this version", hint="make it again: quantize --data"
    )


def merged(tables: Sequence[CalibrationTable]) -> CalibrationTable:
    """One table over the images of all, whichever order they come in.

    Raises:
        DataError: they are of different graphs, or one image is in two of them.
    """
    if len(tables) == 1:
        return tables[0]
    first = tables[0].header
    if any(
        (table.header.graph_sha256, table.header.tensors) != (first.graph_sha256, first.tensors)
        for table in tables
    ):
        raise DataError(
            "the calibration tables are of different graphs, so they cannot be merged",
            hint="calibrate each part of the images with the same ONNX file",
        )
    images = sorted(image for table in tables for image in set(table.header.images))
    twice = [one for one, two in itertools.pairwise(images) if one == two]
    if twice:
        raise DataError(
            f"{len(twice)} images are in more than one of the calibration tables, the first of "
            f"them {twice[0][:12]}…",
            hint="give each table another part of the images",
        )
    return table_of(
        joined([table.found for table in tables]),
        first.graph_sha256,
        _facts([table.header.data for table in tables]),
        _per_class([table.header.audit.per_class for table in tables]),
    )


def _facts(parts: Sequence[DataFacts]) -> DataFacts:
    """What is said of the images of several sources together."""
    parts = sorted(parts, key=lambda part: part.digest)
    return parts[0].model_copy(
        update={
            "reference": " + ".join(part.reference for part in parts),
            "samples": sum(part.samples for part in parts),
            "labelled": all(part.labelled for part in parts),
            "synthetic": any(part.synthetic for part in parts),
            "classes": tuple(dict.fromkeys(name for part in parts for name in part.classes)),
            "digest": digest_of([part.digest for part in parts]),
            "skipped": tuple(name for part in parts for name in part.skipped),
        }
    )


def _per_class(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    names = sorted({name for part in parts for name in part})
    return {name: sum(part.get(name, 0) for part in parts) for name in names}
