"""Two sources in, a refusal or nothing out: calibration must not see what evaluation asks."""

from __future__ import annotations

from collections.abc import Collection

from resdeploy.contracts import Source
from resdeploy.errors import DataError, listed


def refuse_overlap(calibration: Source, evaluation: Source) -> None:
    """Refuse two sources that share an image, by content hash and whatever the names.

    A hash is of the bytes as they are stored: the same picture stored in two ways (as JPEG
    and as PNG, or as a file and in an archive) is not recognised.

    Raises:
        DataError: at least one image is in both; the first pairs are listed.
    """
    known = {content: name for name, content in calibration.hashes().items()}
    pairs = [
        f"{known[content]} is {name}"
        for name, content in evaluation.hashes().items()
        if content in known
    ]
    if not pairs:
        return
    first, second = calibration.facts(), evaluation.facts()
    plural = "images are" if len(pairs) > 1 else "image is"
    raise DataError(
        f"{len(pairs)} {plural} in both the calibration data {first.reference} and the "
        f"evaluation data {second.reference}: {listed(pairs, 3)}",
        hint="give the two different seeds, as in synthetic:64:1"
        if first.synthetic
        else "remove them from one of the two; accuracy on images that were "
        "calibrated with proves nothing",
    )


def refuse_calibrated(hashes: Collection[str], evaluation: Source) -> None:
    """Refuse a source with an image that a calibration table was made from, by content hash.

    Raises:
        DataError: at least one image is.
    """
    known = set(hashes)
    shared = [name for name, content in evaluation.hashes().items() if content in known]
    if shared:
        plural = "images" if len(shared) > 1 else "image"
        raise DataError(
            f"the calibration table was made from {len(shared)} {plural} of the evaluation data "
            f"{evaluation.facts().reference}: {listed(shared, 3)}",
            hint="accuracy on images that were calibrated with proves nothing",
        )
