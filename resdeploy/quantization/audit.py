"""What the images of a calibration are worth: a pass over them in, facts and warnings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from resdeploy.errors import DataError
from resdeploy.quantization.calibrate import Calibrated
from resdeploy.records import CalibrationAudit

# With fewer, ranges hang on single images; with too few there is nothing to see that by.
FEW, TOO_FEW = 100, 8

# A tensor is called unstable where a typical eighth of the images reaches less than 2/3 of the
# range of all.
_UNSTABLE = 1 / 3


def audit_of(
    found: Calibrated, per_class: Mapping[str, int], classes: Sequence[str]
) -> CalibrationAudit:
    """What there is to say; per_class: images of each class, classes: all that there are."""
    dead = {
        name: int(((tensor.low == 0) & (tensor.high == 0)).sum())
        for name, tensor in found.tensors.items()
    }
    spread = {name: _spread(reach) for name, reach in found.reach.items()}
    return CalibrationAudit(
        images=len(found.images),
        distinct=len(set(found.images)),
        per_class=dict(per_class),
        missing_classes=tuple(name for name in classes if not per_class.get(name)),
        dead_channels={name: count for name, count in dead.items() if count},
        unstable={name: round(part, 3) for name, part in spread.items() if part > _UNSTABLE},
    )


def _spread(reach: NDArray[np.float32]) -> float:
    """How far a typical pile of images stays behind the reach of all of them."""
    top = float(np.nanmax(reach))
    return 1 - float(np.nanmedian(reach)) / top if top > 0 else 0.0


def require_enough(audit: CalibrationAudit) -> None:
    """Refuse a set from which no range can be known.

    Raises:
        DataError: it has too few different images.
    """
    if audit.distinct < TOO_FEW:
        raise DataError(
            f"there are {audit.distinct} different calibration images; at least {TOO_FEW} are "
            "needed",
            hint=f"{FEW} and more, like those that the model will see, give ranges that hold",
        )


def warnings_of(audit: CalibrationAudit) -> Iterator[str]:
    """What the user should know before relying on the table."""
    if audit.distinct < FEW:
        yield f"{audit.distinct} different calibration images are few; {FEW} or more are better"
    if audit.distinct < audit.images:
        yield f"{audit.images - audit.distinct} calibration images are there more than once"
    if audit.missing_classes:
        count = len(audit.missing_classes)
        yield (
            f"no calibration image is of {count} of {count + len(audit.per_class)} classes, "
            f"{audit.missing_classes[0]!r} among them"
        )
    if audit.unstable:
        name = max(audit.unstable, key=lambda key: audit.unstable[key])
        yield (
            f"the ranges of {len(audit.unstable)} tensors hang on a few images; a typical eighth "
            f"of them reaches {1 - audit.unstable[name]:.0%} of the range of {name}"
        )
