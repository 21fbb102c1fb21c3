"""A TOML file in, a frozen Recipe out, or all of its problems at once.

One file, no inheritance. Paths are relative to the recipe's folder. Names that rooms know
(formats, runtimes, metrics ...) are handed in, so that this file needs to know no room.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
)

from resdeploy.errors import RecipeError, near_names
from resdeploy.recipe_tables import (
    STRICT,
    BatchTable,
    BenchTable,
    CastTable,
    DataTable,
    DataTables,
    ExportTable,
    InputTable,
    LayersTable,
    ModelTable,
    Names,
    QuantizationTable,
    RuleTable,
    TargetTable,
)
from resdeploy.records import (
    Record,
)

_WEIGHT_WORDS = ("random", "embedded", "pretrained", "torchvision", "hf", "own")
# Reports use these names for what lies between the model and its targets.
STEP_NAMES = ("eager", "export", "simplify", "quantize", "cast")

# Fields of a Recipe that TOML calls otherwise, or cannot say.
_NOT_TOML = ("base", "schema_version")


def _not_empty(targets: tuple[TargetTable, ...]) -> tuple[TargetTable, ...]:
    if not targets:
        raise ValueError("at least 1 target is needed")
    return targets


class Recipe(Record):
    """A model, what to make of it, and what must hold. `base` is the recipe's folder."""

    model_config = STRICT

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: int = 0
    model: ModelTable
    input: InputTable = InputTable()
    export: ExportTable = ExportTable()
    cast: CastTable = CastTable()
    quantization: QuantizationTable = QuantizationTable()
    targets: Annotated[tuple[TargetTable, ...], AfterValidator(_not_empty)]
    layers: LayersTable = LayersTable()
    bench: BenchTable = BenchTable()
    gate: tuple[RuleTable, ...] = ()
    data: DataTables
    baseline: str | None = None
    base: Annotated[Path, Field(exclude=True)] = Path()

    @property
    def weights(self) -> str:
        """The weights reference, a path made relative to the recipe's folder."""
        given = self.model.weights
        return given if is_weights_word(given) else str(self.base / given)

    @property
    def baseline_path(self) -> Path | None:
        """Where the baseline lies, if the recipe names one."""
        return None if self.baseline is None else self.base / self.baseline


def is_weights_word(weights: str) -> bool:
    """Whether a weights reference is a word of its grammar (`random:3`) and not a path."""
    return weights.partition(":")[0] in _WEIGHT_WORDS


def recipe_from_toml(path: Path, names: Names) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        RecipeError: the file cannot be read, or all problems in it by dotted path.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            str(path), [f"cannot be read: {error.strerror}"], hint="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [f"is not TOML: {error}"]) from error
    problems = [f"{key}: unknown key" for key in _NOT_TOML if key in content]
    given = {key: _frozen(value) for key, value in content.items() if key not in _NOT_TOML}
    recipe = None
    try:
        recipe = Recipe.model_validate({**given, "base": path.parent}, context=names)
        problems += _contradictions(recipe, names)
    except ValidationError as error:
        problems += _problems(error)
    if recipe is None or problems:
        raise RecipeError(str(path), problems, hint="recipes/README.md lists every key")
    return recipe


def _frozen(value: Any) -> Any:
    """TOML's arrays as tuples, at any depth."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def _problems(error: ValidationError) -> list[str]:
    """One line per problem: dotted path, then what is wrong and what would be right."""
    lines = []
    for problem in error.errors():
        path = _dotted(problem["loc"]) or "recipe"
        if problem["type"] == "extra_forbidden":
            near = near_names(str(problem["loc"][-1]), _keys_at(problem["loc"][:-1]))
            lines.append(
                f"{path}: unknown key" + (f"; did you mean {' or '.join(near)}?" if near else "")
            )
        elif problem["type"] == "missing":
            lines.append(f"{path}: is missing")
        else:
            said = problem["msg"].removeprefix("Value error, ")
            shown = "" if problem["type"] == "value_error" else f" (it is {problem['input']!r})"
            lines.append(f"{path}: {said}{shown}")
    return lines


def _dotted(location: tuple[int | str, ...]) -> str:
    """`("targets", 1, "format")` as `targets[1].format`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at a location may have."""
    table: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        table = _TABLES[part]
    return [field.alias or key for key, field in table.model_fields.items() if key != "base"]


_TABLES: dict[str, type[BaseModel]] = {
    "model": ModelTable,
    "input": InputTable,
    "batch": BatchTable,
    "export": ExportTable,
    "cast": CastTable,
    "quantization": QuantizationTable,
    "targets": TargetTable,
    "layers": LayersTable,
    "bench": BenchTable,
    "gate": RuleTable,
    "data": DataTables,
    "calibration": DataTable,
    "evaluation": DataTable,
}


def _contradictions(recipe: Recipe, names: Names) -> list[str]:
    """What no single key shows: names used twice, rules for nobody, INT8 without images."""
    targets = [target.name for target in recipe.targets]
    problems = [
        f"targets[{index}].name: {name!r} is used twice"
        for index, name in enumerate(targets)
        if name in targets[:index]
    ]
    problems += [
        f"targets[{index}].name: {name!r} is the name of a step; choose another"
        for index, name in enumerate(targets)
        if name in STEP_NAMES
    ]
    problems += [
        f"targets[{index}].name: {name!r} is the name of one of bench.against; choose another"
        for index, name in enumerate(targets)
        if name in recipe.bench.against
    ]
    problems += names.rule_problems(recipe.gate, targets)
    problems += [
        f"gate[{index}].batches: batch {batch} is not in bench.batches {recipe.bench.batches}"
        for index, rule in enumerate(recipe.gate)
        for batch in rule.batches
        if batch not in recipe.bench.batches
    ]
    timed = recipe.bench.batches
    problems += [
        f"bench.batches: {batch} is there twice"
        for index, batch in enumerate(timed)
        if batch in timed[:index]
    ]
    profile = recipe.input.batch
    problems += [
        f"bench.batches: {batch} is not within input.batch {profile.min} to {profile.max}"
        for batch in recipe.bench.batches
        if profile is not None and not profile.min <= batch <= profile.max
    ]
    quantized = [target.name for target in recipe.targets if target.precision.startswith("int8")]
    if quantized and recipe.data.calibration is None:
        problems.append(f"data.calibration: is missing, and {quantized[0]} needs it")
    return problems
