"""Recipes: the one in the design, and every problem of a bad one at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdeploy.errors import RecipeError
from resdeploy.pipeline.run import recipe_names
from resdeploy.recipe import Recipe, is_weights_word, recipe_from_toml
from resdeploy.recipe_tables import Names
from resdeploy.records import ModelOptions
from resdeploy.words import NormChoice

DESIGN = """
schema = 1
name = "resnet50"
seed = 0
model = { reference = "resnet50", weights = "weights/resnet50.safetensors" }
input = { size = 224, batch = { min = 1, opt = 8, max = 32 } }
quantization = { method = "minmax" }
targets = [
  { name = "onnx-fp32", format = "onnx", precision = "fp32", runtime = "ort" },
  { name = "ort-int8",  format = "onnx", precision = "int8", runtime = "ort", required = false },
]
bench = { batches = [1, 8], rounds = 50 }
gate = [
  { metric = "drift.top1_agreement", min = 0.99 },
  { metric = "bench.p50_vs_baseline", max = 1.05 },
  { metric = "artifact.size_bytes", targets = ["ort-int8"], max = 30_000_000 },
]
[data]
calibration = { folder = "data/calibration", samples = 512 }
evaluation  = { folder = "data/evaluation" }
"""

SMALL = """
schema = 1
name = "small"
model = { reference = "resnet20", weights = "random" }
targets = [{ name = "a", format = "onnx", precision = "fp32", runtime = "ort" }]
data = { evaluation = { synthetic = 4 } }
"""


@pytest.fixture(scope="module")
def names() -> Names:
    return recipe_names()


def read(folder: Path, text: str, names: Names) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return recipe_from_toml(path, names)


def problems(folder: Path, text: str, names: Names) -> dict[str, str]:
    """Dotted path to what is wrong there, in the order in which they are listed."""
    with pytest.raises(RecipeError) as raised:
        read(folder, text, names)
    error = raised.value
    assert error.message.startswith(f"{folder / 'recipe.toml'}: {len(error.problems)} problem")
    assert all(problem in error.message for problem in error.problems)
    split = dict(problem.split(": ", 1) for problem in error.problems)
    assert len(split) == len(error.problems)
    return split


def test_the_recipe_of_the_design(tmp_path: Path, names: Names) -> None:
    recipe = read(tmp_path, DESIGN, names)
    assert recipe.weights == str(tmp_path / "weights/resnet50.safetensors")
    assert recipe.input.batch.opt == 8
    assert [target.required for target in recipe.targets] == [True, False]
    assert recipe.gate[2].targets == ("ort-int8",)
    assert recipe.data.calibration is not None
    assert recipe.data.calibration.reference(recipe.base) == str(tmp_path / "data/calibration")
    assert recipe.baseline_path is None


def test_defaults_and_references(tmp_path: Path, names: Names) -> None:
    recipe = read(tmp_path, SMALL + 'baseline = "../b.json"'.join(["", ""]), names)
    assert (recipe.seed, recipe.bench.batches, recipe.quantization.method) == (0, (1,), "mse")
    assert recipe.weights == "random"
    assert recipe.data.evaluation.reference(recipe.base) == "synthetic:4:0"
    recipe = read(tmp_path, 'baseline = "b.json"\n' + SMALL, names)
    assert recipe.baseline_path == tmp_path / "b.json"
    embedded = SMALL.replace("synthetic = 4", 'embedded = "digits-evaluation"')
    reference = read(tmp_path, embedded, names).data.evaluation.reference(Path())
    assert reference == "embedded:digits-evaluation"
    npz = read(tmp_path, SMALL.replace("synthetic = 4", 'npz = "/d/e.npz"'), names)
    assert npz.data.evaluation.reference(tmp_path) == "/d/e.npz"


@pytest.mark.parametrize(
    ("weights", "is_word"),
    [
        ("random", True),
        ("random:3", True),
        ("pretrained", True),
        ("embedded:digits", True),
        ("torchvision:IMAGENET1K_V2", True),
        ("weights.safetensors", False),
        ("randomly/trained.pth", False),
    ],
)
def test_words_and_paths(weights: str, is_word: bool) -> None:
    assert is_weights_word(weights) is is_word


def with_model(table: str) -> str:
    return SMALL.replace('{ reference = "resnet20", weights = "random" }', table)


def test_a_model_with_options(tmp_path: Path, names: Names) -> None:
    keys = "num_classes = 7, in_channels = 1, norm = 'group', width = 2, output_stride = 8"
    table = f'{{ reference = "resnet20", weights = "random", {keys} }}'
    recipe = read(tmp_path, with_model(table), names)
    assert recipe.model.options == ModelOptions(
        num_classes=7, in_channels=1, norm=NormChoice.GROUP, width=2, output_stride=8
    )
    assert read(tmp_path, SMALL, names).model.options == ModelOptions()


@pytest.mark.parametrize(
    "reference", ["timm:resnet50d", "torchvision:resnet50", "mypackage.mymodel:build"]
)
def test_models_of_other_origins(tmp_path: Path, names: Names, reference: str) -> None:
    recipe = read(tmp_path, with_model(f'{{ reference = "{reference}", weights = "own" }}'), names)
    assert recipe.model.reference == reference
    assert recipe.weights == "own"


@pytest.mark.parametrize(
    ("key", "where", "said"),
    [
        ("norm = 'grup'", "model.norm", "'batch', 'group' or 'frozen' (it is 'grup')"),
        ("num_classes = 0", "model.num_classes", "greater than 0"),
        ("num_classes = '7'", "model.num_classes", "(it is '7')"),
        ("in_channels = true", "model.in_channels", "(it is True)"),
        ("width = -1.0", "model.width", "greater than 0"),
        ("width = inf", "model.width", "finite"),
        ("output_stride = 4", "model.output_stride", "8, 16 or 32"),
        ("num_clases = 3", "model.num_clases", "did you mean num_classes?"),
    ],
)
def test_options_that_cannot_be(
    tmp_path: Path, names: Names, key: str, where: str, said: str
) -> None:
    text = with_model(f'{{ reference = "resnet20", weights = "random", {key} }}')
    (problem,) = problems(tmp_path, text, names).items()
    assert problem[0] == where
    assert said in problem[1]


def test_all_problems_are_told_at_once_by_path_with_near_names(
    tmp_path: Path, names: Names
) -> None:
    found = problems(
        tmp_path,
        """
schema = 1
nane = "x"
base = "/"
schema_version = 1
model = { reference = "resnet51", weight = "w.pth" }
input = { sice = 224, batch = { min = 4, opt = 2 } }
quantization = { method = "minmacs", weight_bits = "9" }
targets = [
  { name = "a", format = "onnx", precision = "fp32", runtime = "ort" },
  { name = "b/c", format = "onxx", precision = "int4", runtime = "ort", requierd = false },
]
bench = { rounds = "many", batches = [1, 0] }
gate = [
  { metric = "drift.top1_agreemnt", min = 0.99 },
  { metric = "drift.flips" },
  { metric = "drift.flips", max = 3, target = ["a"] },
]
[data]
calibration = { folder = "a", npz = "b" }
evaluation = { foldr = "c" }
""",
        names,
    )
    for path, said in {
        "base": "unknown key",
        "schema_version": "unknown key",
        "nane": "unknown key; did you mean name?",
        "name": "is missing",
        "model.reference": "unknown name 'resnet51'; did you mean resnet5",
        "model.weight": "unknown key; did you mean weights?",
        "model.weights": "is missing",
        "input.sice": "unknown key; did you mean size?",
        "input.batch": "min 4, opt 2, max 32 must be in order",
        "quantization.method": "unknown name 'minmacs'; did you mean minmax?",
        "quantization.weight_bits": "(it is '9')",
        "targets[1].name": "(it is 'b/c')",
        "targets[1].format": "unknown name 'onxx'; did you mean onnx?",
        "targets[1].precision": "unknown name 'int4'; did you mean int8?",
        "targets[1].requierd": "unknown key; did you mean required?",
        "bench.rounds": "(it is 'many')",
        "bench.batches[1]": "greater than 0 (it is 0)",
        "gate[0].metric": "did you mean drift.top1_agreement",
        "gate[1]": "a rule needs min or max",
        "gate[2].target": "unknown key; did you mean targets?",
        "data.calibration": "needs exactly one of folder, npz, synthetic, embedded; has ['fol",
        "data.evaluation.foldr": "unknown key; did you mean folder?",
    }.items():
        assert said in found.pop(path), path
    assert found == {}


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        (SMALL.replace("schema = 1", ""), "schema", "is missing"),
        (SMALL.replace("schema = 1", "schema = 2"), "schema", "(it is 2)"),
        (SMALL.replace("schema = 1", "schema = 1\nbase = '/'"), "base", "unknown key"),
        (
            SMALL.replace("schema = 1", "schema_version = 1\nschema = 1"),
            "schema_version",
            "unknown key",
        ),
        (SMALL + "[targets]", "", ""),
        ("targets = 3\n" + SMALL.replace("targets =", "bench ="), "targets", "(it is 3)"),
        (SMALL.replace("{ synthetic = 4 }", "{}"), "data.evaluation", "has none"),
        (SMALL.replace("evaluation =", "calibration ="), "data.evaluation", "is missing"),
        (SMALL.replace('[{ name = "a"', '[] #[{ name = "a"'), "targets", "at least 1"),
    ],
)
def test_single_problems(tmp_path: Path, names: Names, text: str, path: str, said: str) -> None:
    if not path:
        with pytest.raises(RecipeError, match="is not TOML"):
            read(tmp_path, text, names)
        return
    assert said in problems(tmp_path, text, names)[path]


def target(name: str, precision: str = "fp32") -> str:
    return f'{{ name = "{name}", format = "onnx", precision = "{precision}", runtime = "ort" }}'


def test_all_contradictions_are_told_at_once(tmp_path: Path, names: Names) -> None:
    targets = ", ".join([target("a"), target("a"), target("eager"), target("q", "int8")])
    text = SMALL.replace(target("a"), targets)
    text += """
[[gate]]
metric = "drift.flips"
targets = ["aa"]
max = 3
[[gate]]
metric = "bench.speedup"
batches = [1, 16]
min = 1
[[gate]]
metric = "drift.flips"
batches = [1]
max = 3
[[gate]]
metric = "drift.sqnr_db"
min = 30
max = 20
[[gate]]
metric = "drift.sqnr_db"
min = nan
"""
    found = problems(tmp_path, text, names)
    for path, said in {
        "targets[1].name": "'a' is used twice",
        "targets[2].name": "'eager' is the name of a step",
        "gate[0].targets": "no target is named 'aa'",
        "gate[1].batches": "batch 16 is not in bench.batches (1,)",
        "gate[2].batches": "one number per target",
        "gate[3].min": "30.0 is above max 20.0",
        "gate[4].min": "nan is not a finite number",
        "data.calibration": "is missing, and q needs it",
    }.items():
        assert said in found.pop(path), path
    assert found == {}


@pytest.mark.parametrize("step", ["eager", "export", "simplify"])
def test_names_of_steps_are_taken(tmp_path: Path, names: Names, step: str) -> None:
    text = SMALL.replace('name = "a"', f'name = "{step}"')
    assert "is the name of a step" in problems(tmp_path, text, names)["targets[0].name"]


def test_files_that_are_no_recipe(tmp_path: Path, names: Names) -> None:
    with pytest.raises(RecipeError, match=r"no\.toml: 1 problem\n.*No such file") as raised:
        recipe_from_toml(tmp_path / "no.toml", names)
    assert raised.value.hint
    with pytest.raises(RecipeError, match="Is a directory"):
        recipe_from_toml(tmp_path, names)
    with pytest.raises(RecipeError, match=r"is not TOML: .*line 2"):
        read(tmp_path, "schema = 1\nname = \n", names)
    (tmp_path / "recipe.toml").write_bytes(b"name = '\xff\xfe'")
    with pytest.raises(RecipeError, match="is not TOML"):
        recipe_from_toml(tmp_path / "recipe.toml", names)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("synthetic = 4", 'synthetic = "4"', "data.evaluation.synthetic"),
        ("synthetic = 4", "synthetic = true", "data.evaluation.synthetic"),
        ('"ort" }', '"ort", required = "no" }', "targets[0].required"),
        ("schema = 1", "schema = 1\nseed = true", "seed"),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_read_as_something_else(
    tmp_path: Path, names: Names, old: str, new: str, where: str
) -> None:
    assert list(problems(tmp_path, SMALL.replace(old, new), names)) == [where]


def test_a_batch_is_timed_once(tmp_path: Path, names: Names) -> None:
    found = problems(tmp_path, SMALL + "bench = { batches = [1, 1] }", names)
    assert found == {"bench.batches": "1 is there twice"}


def test_timed_batches_lie_within_the_profile(tmp_path: Path, names: Names) -> None:
    text = SMALL + "bench = { batches = [1, 8] }\ninput = { batch = { min = 2, opt = 4, max = 8 } }"
    found = problems(tmp_path, text, names)
    assert found == {"bench.batches": "1 is not within input.batch 2 to 8"}
    text = SMALL + "input = { batch = { min = 4, opt = 2, max = 8 } }"
    assert list(problems(tmp_path, text, names)) == ["input.batch"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('metric = "drift.top1_agreement", min = 97', "between 0 and 1"),
        ('metric = "drift.top1_drop", max = 1', "one percentage point"),
    ],
)
def test_a_limit_in_per_cent_is_refused(tmp_path: Path, names: Names, rule: str, said: str) -> None:
    (problem,) = problems(tmp_path, SMALL + f"gate = [{{ {rule} }}]", names).values()
    assert said in problem


def test_a_target_may_be_called_like_a_baseline_that_is_not_timed(
    tmp_path: Path, names: Names
) -> None:
    """Two runners of one name could not be told apart; one that is not there is in no one's way."""
    text = DESIGN.replace('name = "onnx-fp32"', 'name = "torchscript"')
    assert read(tmp_path, text, names).targets[0].name == "torchscript"
    both = text.replace("rounds = 50", 'rounds = 50, against = ["torchscript"]')
    with pytest.raises(RecipeError, match=r"one of bench\.against"):
        read(tmp_path, both, names)
