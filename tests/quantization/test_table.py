"""The calibration table: written and read, merged, and refused where it is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from resdeploy.errors import ArtifactError, DataError
from resdeploy.quantization.calibrate import calibrate
from resdeploy.quantization.table import (
    CalibrationTable,
    merged,
    read_table,
    table_of,
    write_table,
)
from resdeploy.records import DataFacts
from tests.graph import tools
from tests.quantization.test_calibrate import fields
from tests.quantization.tools import observe

GRAPH = "a" * 64
IMAGES = tools.noise(24, 3, 6, 6)


def facts(samples: int, *, reference: str = "here", classes: Sequence[str] = ()) -> DataFacts:
    return DataFacts(
        reference=reference, samples=samples, labelled=bool(classes), synthetic=False,
        digest=reference, classes=tuple(classes),
    )  # fmt: skip


def table(
    images: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = IMAGES,
    *,
    graph: str = GRAPH,
    reference: str = "here",
    per_class: dict[str, int] | None = None,
    classes: Sequence[str] = (),
) -> CalibrationTable:
    batches = [tools.batch(np.ascontiguousarray(images))]
    found = calibrate(observe, {"x": 3, "q": 3}, batches, tools.hashes_of(batches))
    data = facts(len(images), reference=reference, classes=classes)
    return table_of(found, graph, data, per_class or {})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    made = table(per_class={"cat": 20, "dog": 4}, classes=["cat", "dog", "fox"])
    path = tmp_path / "a.safetensors"
    write_table(made, path)
    found = read_table(path)
    assert found.header == made.header
    assert fields(found.found) == fields(made.found)
    assert found.header.audit.missing_classes == ("fox",)


def test_a_tensor_that_is_always_0_comes_back(tmp_path: Path) -> None:
    made = table(np.zeros((9, 3, 6, 6), np.float32))
    write_table(made, tmp_path / "a.safetensors")
    assert fields(read_table(tmp_path / "a.safetensors").found) == fields(made.found)
    assert made.header.audit.dead_channels == {"x": 3, "q": 3}


WRITING = """
import sys
from pathlib import Path
from tests.quantization.test_table import table, write_table
write_table(table(), Path(sys.argv[1]))
"""


def test_two_processes_write_equal_bytes(tmp_path: Path) -> None:
    write_table(table(), tmp_path / "here.safetensors")
    subprocess.run([sys.executable, "-c", WRITING, tmp_path / "there.safetensors"], check=True)
    one, two = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("here", "there"))
    assert one == two


@pytest.mark.parametrize("cuts", [[1], [12], [3, 7, 20]], ids=str)
def test_merged_tables_are_one_pass_over_all_images(cuts: list[int]) -> None:
    parts = [
        table(part, reference=f"part-{index}") for index, part in enumerate(np.split(IMAGES, cuts))
    ]
    whole = merged(parts)
    assert fields(whole.found) == fields(table().found)
    other = merged(parts[::-1])
    assert fields(other.found) == fields(whole.found)
    assert other.header == whole.header
    assert whole.header.data.samples == 24
    # The audit is of all images, too, though the pass saw them in parts.
    assert whole.header.audit == table().header.audit


def test_parts_of_very_different_size_are_one_pass() -> None:
    """What counts as zero hangs on the largest value, which only one part has."""
    small, large = IMAGES[:12] * 1e-6, IMAGES[12:] * 1e3
    parts = [table(small, reference="small"), table(large, reference="large")]
    assert fields(merged(parts).found) == fields(table(np.concatenate([small, large])).found)


def test_classes_of_all_parts_count() -> None:
    one = table(IMAGES[:12], reference="1", per_class={"cat": 12}, classes=["cat", "dog"])
    two = table(IMAGES[12:], reference="2", per_class={"fox": 12}, classes=["fox"])
    found = merged([one, two])
    assert found.header.audit.per_class == {"cat": 12, "fox": 12}
    assert found.header.audit.missing_classes == ("dog",)
    assert set(found.header.data.classes) == {"cat", "dog", "fox"}


def test_one_table_is_merged_already() -> None:
    made = table()
    assert merged([made]) is made


def test_tables_of_two_graphs_are_refused() -> None:
    with pytest.raises(DataError, match="of different graphs"):
        merged([table(IMAGES[:12]), table(IMAGES[12:], graph="b" * 64)])


def test_an_image_in_two_tables_is_refused() -> None:
    with pytest.raises(DataError, match="3 images are in more than one") as raised:
        merged([table(IMAGES[:12]), table(IMAGES[9:])])
    assert raised.value.hint


def test_an_image_that_one_table_has_twice_is_no_overlap() -> None:
    twice = np.concatenate([IMAGES[:4], IMAGES[:4]])
    found = merged([table(twice, reference="1"), table(IMAGES[4:], reference="2")])
    assert (found.header.audit.images, found.header.audit.distinct) == (28, 24)


Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def with_header(text: str) -> Damage:
    def damage(path: Path) -> None:
        save_file(load_file(path), path, metadata={"resdeploy": text})

    return damage


def without_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def without_an_array(path: Path) -> None:
    header = read_table(path).header.to_json()
    arrays = load_file(path)
    del arrays["1.positive"]
    save_file(arrays, path, metadata={"resdeploy": header})


def of_another_shape(path: Path) -> None:
    header = read_table(path).header.to_json()
    arrays = load_file(path)
    arrays["1.first"] = arrays["1.first"][:1]
    save_file(arrays, path, metadata={"resdeploy": header})


def of_a_later_schema(path: Path) -> None:
    header = json.loads(read_table(path).header.to_json())
    with_header(json.dumps({**header, "schema": 2}))(path)


def of_another_kind(path: Path) -> None:
    header = json.loads(read_table(path).header.to_json())
    with_header(json.dumps({**header, "kind": "artifact"}))(path)


DAMAGED: dict[str, Damage] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "garbage": lambda path: path.write_bytes(b"\x00\xff" * 500) and None,
    "cut": cut,
    "cut in the header": cut_in_the_header,
    "no metadata": without_metadata,
    "no JSON": with_header("{"),
    "a list": with_header("[1]"),
    "half a header": with_header('{"schema": 1, "kind": "calibration-table"}'),
    "no array": without_an_array,
    "another shape": of_another_shape,
    "a later schema": of_a_later_schema,
    "another kind": of_another_kind,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_table_is_refused_by_name(damage: Damage, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_table(table(), path)
    damage(path)
    with pytest.raises(ArtifactError, match=r"a\.safetensors"):
        read_table(path)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no calibration table"):
        read_table(tmp_path)
