"""What calibration images are worth, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.errors import DataError
from resdeploy.quantization.audit import audit_of, require_enough, warnings_of
from resdeploy.quantization.calibrate import calibrate
from resdeploy.records import CalibrationAudit
from tests.graph import tools
from tests.quantization.tools import observe


def audit(
    images: NDArray[np.float32],
    per_class: dict[str, int] | None = None,
    classes: tuple[str, ...] = (),
) -> CalibrationAudit:
    batches = [tools.batch(images)]
    found = calibrate(observe, {"x": 2, "q": 2}, batches, tools.hashes_of(batches))
    return audit_of(found, per_class or {}, classes)


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Images that all reach about as far."""
    return np.clip(tools.noise(count, 2, 8, 8, seed=seed), -1, 1)


def test_enough_different_images_are_not_talked_about() -> None:
    found = audit(images(128), {"cat": 100, "dog": 28}, ("cat", "dog"))
    assert list(warnings_of(found)) == []
    require_enough(found)
    assert (found.images, found.distinct) == (128, 128)
    assert (found.dead_channels, found.unstable, found.missing_classes) == ({}, {}, ())


def test_few_images_are_told_and_too_few_are_refused() -> None:
    few = audit(images(8))
    require_enough(few)
    assert list(warnings_of(few)) == [
        "8 different calibration images are few; 100 or more are better"
    ]
    with pytest.raises(DataError, match="7 different calibration images; at least 8") as raised:
        require_enough(audit(images(7)))
    assert "100" in raised.value.hint


def test_copies_make_no_more_images() -> None:
    found = audit(np.tile(images(5), (20, 1, 1, 1)))
    assert (found.images, found.distinct) == (100, 5)
    assert "95 calibration images are there more than once" in list(warnings_of(found))
    with pytest.raises(DataError, match="5 different"):
        require_enough(found)


def test_classes_without_an_image_are_named() -> None:
    found = audit(images(100), {"cat": 100}, ("ant", "cat", "dog"))
    assert found.missing_classes == ("ant", "dog")
    assert list(warnings_of(found)) == [
        "no calibration image is of 2 of 3 classes, 'ant' among them"
    ]


def test_without_names_no_class_is_missing() -> None:
    found = audit(images(100), {"3": 60, "7": 40})
    assert found.missing_classes == ()
    assert list(warnings_of(found)) == []


def test_dead_channels_are_counted_by_tensor() -> None:
    some = images(100)
    some[:, 1] = -np.abs(some[:, 1]) - 0.1  # which a Relu makes 0 of
    found = audit(some)
    assert found.dead_channels == {"q": 1}


def test_a_range_that_hangs_on_one_image_is_told() -> None:
    some = images(128)
    some[17, 0, 3, 3] = 10.0
    found = audit(some)
    assert set(found.unstable) == {"x", "q"}
    assert found.unstable["x"] == pytest.approx(0.9, abs=0.001)
    (told,) = warnings_of(found)
    assert "hang on a few images" in told
    assert "10%" in told


def test_a_tensor_that_is_always_0_is_not_unstable() -> None:
    found = audit(np.concatenate([np.zeros((20, 2, 8, 8), np.float32)]))
    assert found.unstable == {}
    assert found.dead_channels == {"x": 2, "q": 2}
