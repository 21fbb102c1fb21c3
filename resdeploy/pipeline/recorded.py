"""Artifacts and what the user says in, the model to compare them with out.

Without a model that the user names it is the one that the sidecars name, made again and held
against what they say of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resdeploy.artifact import Artifact
from resdeploy.contracts import Notify, Progress
from resdeploy.errors import ArtifactError, UsageError
from resdeploy.models.probe import same_answers
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.pipeline.produce import loaded_model
from resdeploy.recipe import is_weights_word
from resdeploy.records import ModelFacts, ModelOptions, Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the user says about the model to compare with."""

    reference: str | None
    weights: str | Path | None
    options: ModelOptions
    size: int | None


def reference_of(
    opened: Sequence[Artifact],
    named: Named,
    choice: InputChoice,
    notify: Notify,
    progress: Progress,
) -> tuple[LoadedModel, Preprocess]:
    """The model to compare with, and how images are preprocessed for it and for the artifacts.

    Raises:
        ArtifactError: nothing says which model it is, or the artifacts do not agree.
        UsageError: what the user says makes no sense for it.
    """
    loaded = reference_model(opened, named, notify, progress)
    return loaded, chosen_preprocess(_common_preprocess(opened, loaded), choice)


def reference_model(
    opened: Sequence[Artifact], named: Named, notify: Notify, progress: Progress
) -> LoadedModel:
    """The model to compare with: the one that is named, or the one the sidecars name.

    Raises:
        UsageError: there is no candidate, or options without a reference.
        ArtifactError: nothing names a model, or the one that is found is not that one.
    """
    if not opened:
        raise UsageError("there is no candidate", hint="name at least one artifact")
    if named.reference is not None:
        return loaded_model(
            named.reference,
            named.weights,
            notify,
            options=named.options,
            size=named.size or _recorded_size(opened),
            progress=progress,
        )
    for name, value in named.options.model_dump(mode="json", exclude_none=True).items():
        raise UsageError(
            f"{name} is {value}, but the model is the one that the sidecars name",
            hint="it goes with --reference",
        )
    return _recorded_model(opened, named, notify, progress)


def _recorded_model(
    opened: Sequence[Artifact], named: Named, notify: Notify, progress: Progress
) -> LoadedModel:
    """The model that the sidecars name, made again at the size that it was exported for."""
    facts = _common_model(opened)
    given = named.weights or _found_weights(facts, opened[0].path.parent)
    loaded = loaded_model(
        facts.reference,
        given,
        notify,
        options=facts.options,
        size=_recorded_size(opened) or named.size,
        progress=progress,
    )
    _require_same(loaded.facts, facts, given, opened[0].path.name)
    for artifact in opened:
        assert artifact.manifest is not None  # _common_model refused it otherwise
        assert artifact.manifest.model is not None
        _require_unchanged(loaded.facts, artifact.manifest.model, artifact.path.name)
    return loaded


def _recorded_size(opened: Sequence[Artifact]) -> int | None:
    manifests = [artifact.manifest for artifact in opened if artifact.manifest]
    return next((item.preprocess.size for item in manifests if item.preprocess), None)


def _require_same(found: ModelFacts, recorded: ModelFacts, given: str | Path, name: str) -> None:
    """Refuse a model that is not the one a sidecar names, by its weights and its shapes.

    Raises:
        ArtifactError: it is another one.
    """
    if found.weights_sha256 != recorded.weights_sha256:
        changed = f"{recorded.reference} has changed: export it again, or "
        raise ArtifactError(
            f"the weights {given} are not those that {name} was made from: "
            f"their sha256 is {found.weights_sha256}, it was {recorded.weights_sha256}",
            hint=(changed if given == "own" else "")
            + "name the right ones with --reference and --weights",
        )
    for field in ("params", "num_classes", "in_channels"):
        now, then = getattr(found, field), getattr(recorded, field)
        if now != then:
            raise ArtifactError(
                f"{recorded.reference} is not the model that {name} was made from: "
                f"{field} is {now}, it was {then}",
                hint="it has changed; export it again",
            )


def _require_unchanged(found: ModelFacts, recorded: ModelFacts, name: str) -> None:
    """Refuse a model whose code has changed since a sidecar was written for it.

    Raises:
        ArtifactError: it consists of something else, or answers otherwise.
    """
    if recorded.state_sha256 not in (None, found.state_sha256):
        how = "its weights or its layers are others"
    elif recorded.probe and not same_answers(found.probe, recorded.probe):
        now, then = _few(found.probe), _few(recorded.probe)
        how = f"the same image has the logits {now}, it had {then}"
    else:
        return
    raise ArtifactError(
        f"{recorded.reference} has changed since {name} was made from it: {how}",
        hint="export it again; its code, or a package that its code is made of, is another one",
    )


def _few(logits: Sequence[float]) -> str:
    return ", ".join(f"{logit:.4g}" for logit in logits[:3])


def _found_weights(facts: ModelFacts, folder: Path) -> str:
    """The weights where the sidecar says, seen from here or from the artifact, or beside it."""
    if facts.weights_origin.startswith("hf:"):  # the commit, wherever its branch is by now
        repository, _, rest = facts.weights_origin.partition("@")
        return f"{repository}@{rest.partition('/')[0]}"
    if is_weights_word(facts.weights):
        return facts.weights
    for path in (Path(facts.weights), folder / facts.weights, folder / Path(facts.weights).name):
        if path.is_file():
            return str(path)
    raise ArtifactError(
        f"the sidecar names the weights {facts.weights}, and there is no such file here",
        hint="say where they are with --weights",
    )


def _common_model(opened: Sequence[Artifact]) -> ModelFacts:
    models = [artifact.manifest.model if artifact.manifest else None for artifact in opened]
    first = models[0] and _identity(models[0])
    for artifact, model in zip(opened, models, strict=True):
        if model is None:
            raise ArtifactError(
                f"nothing says which model {artifact.path} was made from",
                hint="name it with --reference and --weights",
            )
        if _identity(model) != first:
            raise ArtifactError(
                f"{artifact.path} and {opened[0].path} were made from different models",
                hint="compare them one at a time, or name one --reference",
            )
    assert models[0] is not None  # the loop above raised otherwise
    return models[0]


def _identity(model: ModelFacts) -> ModelFacts:
    """The model without what may differ between two files of it.

    Weights count by their hash, where they have one: the same file may be spelled in two ways.
    What was found out about other people's code is compared with the model made again.
    """
    model = model.model_copy(update={"state_sha256": None, "probe": ()})
    if model.weights_sha256 is None:
        return model
    return model.model_copy(update={"weights": "", "weights_origin": ""})


def _common_preprocess(opened: Sequence[Artifact], loaded: LoadedModel) -> Preprocess:
    """The sidecars' preprocessing, the model's own where there is none.

    Raises:
        ArtifactError: the sidecars differ.
    """
    manifests = [artifact.manifest for artifact in opened if artifact.manifest]
    found = [manifest.preprocess for manifest in manifests if manifest.preprocess]
    for other in found[1:]:
        if other != found[0]:
            raise ArtifactError(
                "the candidates take differently preprocessed images",
                hint="compare them one at a time",
            )
    return found[0] if found else loaded.preprocess
