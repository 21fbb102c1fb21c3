"""Where a file goes wrong: the layer that was ruined is named, and no sound one is blamed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from resdeploy import cast, check, export, layers, quantize
from resdeploy.artifact import open_artifact, publish, sidecar_path
from resdeploy.contracts import Batch, silent
from resdeploy.data import source_from_reference
from resdeploy.errors import GraphError, UsageError
from resdeploy.graph.scaling.record import KEY
from resdeploy.models.reference import resolve
from resdeploy.pipeline.evaluate import candidates_of
from resdeploy.pipeline.layer_records import layer_records
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.records import (
    DataFacts,
    ExportOptions,
    LayersRecord,
    Manifest,
    Preprocess,
    QuantizeOptions,
)
from resdeploy.words import Head
from tests.layer_tools import layers_in, ruined

DIGITS = {"reference": "resnet20", "weights": "embedded:digits"}
IMAGES = "embedded:digits-evaluation"

# First, in the middle, at the begin and the end of a stage, and the classifier.
PLACES = ("conv1", "layer1.1.conv2", "layer2.0.conv1", "layer3.2.conv2", "fc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="module")
def floats(folder: Path) -> Path:
    return export("resnet20", weights="embedded:digits", output=folder / "fp32.onnx").path


@pytest.fixture(scope="module")
def integers(floats: Path) -> dict[str, Path]:
    """An equalized file for a target with INT32 biases, and for one with float biases."""
    return {
        target: quantize(
            str(floats), data="embedded:digits-calibration", samples=40, target=target,
            output=floats.with_name(f"{target}.onnx"),
        ).artifact.path
        for target in ("ort-cpu", "tensorrt")
    }  # fmt: skip


def looked(path: Path, *, samples: int = 16, data: str = IMAGES) -> LayersRecord:
    (record,) = layers([path], data=data, samples=samples, **DIGITS)
    return record


def least_own_db(record: LayersRecord) -> float:
    return min(row.own_sqnr_db for row in record.layers if row.own_sqnr_db is not None)


@pytest.mark.parametrize("place", PLACES)
def test_the_ruined_layer_of_a_float_file_is_named(
    floats: Path, tmp_path: Path, place: str
) -> None:
    record = looked(ruined(floats, tmp_path / "r.onnx", place))
    assert record.worst_layer == place
    assert least_own_db(record) < 20
    others = [row.own_sqnr_db for row in record.layers if row.name != place]
    assert min(level for level in others if level is not None) > 110  # float32, and no more


@pytest.mark.parametrize("target", ["ort-cpu", "tensorrt"])
@pytest.mark.parametrize("place", PLACES)
def test_the_ruined_layer_of_an_equalized_file_is_named(
    integers: dict[str, Path], tmp_path: Path, place: str, target: str
) -> None:
    record = looked(ruined(integers[target], tmp_path / "r.onnx", place))
    assert record.worst_layer == place


def test_nothing_in_a_sound_file_is_far_off(floats: Path, integers: dict[str, Path]) -> None:
    record = looked(floats)
    assert least_own_db(record) > 110
    assert record.unpaired == ()
    for path in integers.values():
        manifest = open_artifact(path).manifest
        assert manifest is not None
        assert manifest.quantization is not None
        assert any("equalize: " in step for step in manifest.quantization.steps)
        # As far as 8 bits reach; compared without the channels' factors it would be below 10.
        assert least_own_db(looked(path)) > 25


def test_a_record_has_what_check_says_and_the_network_in_order(floats: Path) -> None:
    record = looked(floats)
    (drift,) = check([floats], data=IMAGES, samples=16, **DIGITS)
    assert record.drift == drift
    names = [row.name for row in record.layers]
    assert names[0] == "conv1"
    assert names[-1] == "fc"
    assert (
        names.index("layer1.0.conv1")
        < names.index("layer1.0.relu2")
        < names.index("layer3.0.conv1")
    )
    assert set(layers_in(floats)) <= set(names)
    by_name = {row.name: row for row in record.layers}
    assert by_name["conv1"].reads == ("images",)
    assert set(by_name["layer1.0.relu2"].reads) == {"relu", "layer1.0.conv2"}
    assert by_name["layer1.0.relu2"].operators == ("Add", "Relu")


def test_running_noise_adds_up_and_a_fall_is_the_difference(
    integers: dict[str, Path], tmp_path: Path
) -> None:
    record = looked(ruined(integers["ort-cpu"], tmp_path / "r.onnx", "layer2.1.conv1"))
    rows = {row.name: row for row in record.layers}
    bad, before = rows["layer2.1.conv1"], rows["layer2.0.relu2"]
    assert bad.sqnr_db is not None
    assert before.sqnr_db is not None
    assert bad.fall_db == pytest.approx(before.sqnr_db - bad.sqnr_db)
    assert bad.fall_db > 10
    after = rows["layer2.1.conv2"]
    assert after.sqnr_db is not None
    assert after.own_sqnr_db is not None
    assert after.sqnr_db < 25 < after.own_sqnr_db  # it is fed with noise, and adds none


def test_infinity_that_a_layer_makes_of_sound_inputs_is_the_worst(
    floats: Path, folder: Path, tmp_path: Path
) -> None:
    half = cast(floats, output=folder / "fp16.onnx").path
    assert 40 < least_own_db(looked(half)) < 90
    told: list[str] = []
    path = ruined(half, tmp_path / "r.onnx", "layer2.0.conv2", factor=1e8)
    (record,) = layers([path], data=IMAGES, samples=16, notify=told.append, **DIGITS)
    assert record.worst_layer == "layer2.0.conv2"
    broken = [row.name for row in record.layers if row.nonfinite]
    assert broken[0] == "layer2.0.conv2"
    assert record.nonfinite
    # On a CPU, ONNX Runtime computes float16 in float32, and never sees the overflow.
    assert record.drift.nonfinite == 0
    assert ["hides it" in text for text in told] == [True]


@pytest.mark.parametrize("head", [Head.FEATURES, Head.PROBABILITIES])
def test_files_with_another_end_are_looked_into(floats: Path, tmp_path: Path, head: Head) -> None:
    path = tmp_path / "m.onnx"
    pixels = head is Head.PROBABILITIES
    export(
        "resnet20", weights="embedded:digits", output=path,
        how=ExportOptions(head=head, embed_preprocess=pixels),
    )  # fmt: skip
    record = looked(path)
    assert len(record.layers) > 40
    assert least_own_db(record) > 110


def test_the_answers_as_written_are_held_against_the_runtimes_own(
    integers: dict[str, Path],
) -> None:
    told: list[str] = []
    path = integers["tensorrt"]
    (same,) = layers([path], data=IMAGES, samples=16, notify=told.append, **DIGITS)
    assert same.drift.runtime == same.runtime == "ort-exact"
    assert same.agreement_sqnr_db is None or same.agreement_sqnr_db > 90
    other = looked(integers["ort-cpu"])
    assert other.drift.runtime == "ort"
    assert other.answers_sqnr_db is not None
    assert told == []


class _Forgetful:
    """A source that holds every batch weakly, and refuses to go on while somebody keeps one."""

    def __init__(self, count: int) -> None:
        self.inner = source_from_reference(IMAGES, samples=count)
        self.given: list[weakref.ref[NDArray[np.float32]]] = []

    def facts(self) -> DataFacts:
        return self.inner.facts()

    def hashes(self) -> dict[str, str]:
        return self.inner.hashes()

    def batches(
        self, preprocess: Preprocess, size: int, at_most: int | None = None
    ) -> Iterator[Batch]:
        for batch in self.inner.batches(preprocess, size, at_most):
            gc.collect()
            # The loop that takes batches holds the last one while it asks for the next.
            assert sum(ref() is not None for ref in self.given) <= 1
            self.given.append(weakref.ref(batch.images))
            yield batch
            del batch


def test_no_image_is_kept(floats: Path) -> None:
    loaded = resolve("resnet20", "embedded:digits")
    source = _Forgetful(80)
    (record,) = layer_records(
        loaded,
        candidates_of([open_artifact(floats)]),
        source,
        loaded.preprocess,
        threads=1,
        progress=silent,
    )
    assert record.samples == 80
    assert len(source.given) == 5


def test_figures_are_those_of_the_tensors_themselves(floats: Path, tmp_path: Path) -> None:
    path = ruined(floats, tmp_path / "r.onnx", "layer2.0.conv1")
    model = onnx.load(path)
    tensor = "/layer2/layer2.0/bn1/BatchNormalization_output_0"
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    onnx.save(model, tmp_path / "open.onnx")
    session = ort.InferenceSession(str(tmp_path / "open.onnx"))
    loaded = resolve("resnet20", "embedded:digits")
    part, seen = loaded.module.get_submodule("layer2.0.bn1"), []
    # A copy: the activation behind it writes into the same tensor.
    hook = part.register_forward_hook(lambda _, __, output: seen.append(output.numpy().copy()))
    signal = noise = 0.0
    source = source_from_reference(IMAGES, samples=20)
    for batch in source.batches(loaded.preprocess, 3):  # not as many as they are taken in there
        with torch.inference_mode():
            loaded.module(torch.from_numpy(batch.images))
        (got,) = session.run([tensor], {"input": batch.images})
        expected = seen.pop().astype(np.float64)
        signal += np.square(expected).sum()
        noise += np.square(got - expected).sum()
    hook.remove()
    rows = {row.name: row for row in looked(path, samples=20).layers}
    row = rows["layer2.0.conv1"]
    assert row.tensor == tensor
    assert row.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert row.own_sqnr_db == pytest.approx(row.sqnr_db, abs=1e-3)  # all before it is sound


def test_programs_of_pytorch_are_refused_with_what_can_be_done(tmp_path: Path) -> None:
    for format, suffix in (("torchscript", ".torchscript"), ("pt2", ".pt2")):
        path = export("resnet20", format=format, output=tmp_path / f"m{suffix}").path
        with pytest.raises(UsageError, match=f"is {format}, and only of ONNX") as error:
            layers([path], data="synthetic:2")
        assert "--format onnx" in error.value.hint


def _without_note(path: Path, other: Path) -> Path:
    model = onnx.load(path)
    kept = [prop for prop in model.metadata_props if prop.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, other)
    return other


def test_integers_without_a_note_of_their_factors_are_refused(
    integers: dict[str, Path], tmp_path: Path
) -> None:
    bare = _without_note(integers["ort-cpu"], tmp_path / "bare.onnx")
    with pytest.raises(GraphError, match="neither the graph nor a sidecar says"):
        looked(bare)
    manifest = open_artifact(integers["ort-cpu"]).manifest
    assert manifest is not None
    old = publish(bare, tmp_path / "old.onnx", _manifest_for(bare, manifest))
    with pytest.raises(GraphError, match="did not write down by what"):
        looked(old.path)


def _manifest_for(path: Path, manifest: Manifest) -> Manifest:
    changed = {"sha256": open_artifact(path).sha256, "size_bytes": path.stat().st_size}
    return manifest.model_copy(update=changed)


def test_integers_of_which_a_sidecar_says_that_nothing_was_scaled_need_no_note(
    floats: Path, tmp_path: Path
) -> None:
    how = QuantizeOptions(equalize=False, round_weights=False, correct_bias=False)
    made = quantize(
        str(floats), data="embedded:digits-calibration", samples=20, how=how,
        output=tmp_path / "plain.onnx",
    )  # fmt: skip
    bare = _without_note(made.artifact.path, tmp_path / "bare.onnx")
    assert made.artifact.manifest is not None
    old = publish(bare, tmp_path / "old.onnx", _manifest_for(bare, made.artifact.manifest))
    assert least_own_db(looked(old.path)) > 20


def test_a_damaged_note_is_refused(integers: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(integers["ort-cpu"])
    note = next(prop for prop in model.metadata_props if prop.key == KEY)
    note.value = note.value.replace("A", "!", 1)
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(GraphError, match=f"{KEY} is damaged"):
        looked(tmp_path / "damaged.onnx")


def test_names_that_say_nothing_are_refused(floats: Path, tmp_path: Path) -> None:
    model = onnx.load(floats)
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    onnx.save(model, tmp_path / "nameless.onnx")
    with pytest.raises(GraphError, match=r"do not say which module .*1 of 62") as error:
        looked(tmp_path / "nameless.onnx")
    assert "--exporter trace" in error.value.hint


def test_on_real_images_the_ruined_layer_is_named(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "checkpoints" / "resnet20-12fca82f.th"
    data = f"{shared_data}/cifar10"
    made = quantize(
        "resnet20", weights=weights, data=f"{data}/calibration", samples=64, target="openvino",
        output=tmp_path / "q.onnx",
    )  # fmt: skip
    assert not sidecar_path(tmp_path / "r.onnx").exists()
    for place in ("conv1", "layer1.2.conv2", "layer2.0.conv1", "layer3.1.conv2", "fc"):
        path = ruined(made.artifact.path, tmp_path / "r.onnx", place)
        (record,) = layers(
            [path], data=f"{data}/evaluation", samples=8, reference="resnet20", weights=weights,
            choice=InputChoice(),
        )  # fmt: skip
        assert record.worst_layer == place
