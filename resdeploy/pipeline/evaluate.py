"""`check` and `bench`: artifacts and their reference in, drift and latency records out.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resdeploy.artifact import Artifact, open_artifact
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import ArtifactError, UsageError
from resdeploy.measure.machine import machine_facts
from resdeploy.models.probe import same_answers
from resdeploy.models.reference import AS_NAMED, LoadedModel
from resdeploy.pipeline import compare, make
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.pipeline.produce import loaded_model
from resdeploy.pipeline.runtime_choice import require_timed, runtime_for
from resdeploy.recipe import is_weights_word
from resdeploy.records import DriftRecord, LatencyRecord, ModelFacts, ModelOptions, Preprocess
from resdeploy.words import OnBroken

_DEFAULT_INPUT = InputChoice()


def check(
    candidates: Sequence[Path],
    *,
    data: str,
    runtime: str | None = None,
    trusted: bool = False,
    reference: str | None = None,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    samples: int | None = None,
    on_broken: OnBroken = OnBroken.STOP,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> tuple[DriftRecord, ...]:
    """How far each candidate's answers are from eager PyTorch's on the same images.

    Without `reference`, the model that the sidecars name, its weights checked by hash.

    runtime: who runs them, "ort-exact" as the graph is written; without it, the runtime that an
        INT8 file was made for, or the first one that runs the format.
    options: of `reference`; the sidecars have those of the model that they name.
    trusted: run engines without a sidecar, which are code that nobody else vouches for.

    Raises:
        ArtifactError: a candidate has no sidecar and no reference is given, or they differ.
        UnknownNameError, MissingExtraError: no such runtime, or it is not installed.
        UsageError: options without a reference, or ones that make no sense for it; a runtime
            that does not run a candidate.
    """
    source = source_from_reference(data, samples=samples, on_broken=on_broken)
    opened = [open_artifact(Path(path)) for path in candidates]
    named = Named(reference=reference, weights=weights, options=options, size=choice.size)
    loaded = reference_model(opened, named, notify, progress)
    preprocess = chosen_preprocess(common_preprocess(opened, loaded), choice)
    make.require_image_channels(loaded.facts, preprocess)
    records = compare.drift_records(
        loaded,
        candidates_of(opened, runtime, trusted=trusted),
        source,
        preprocess,
        threads=machine_facts().cores,
        progress=progress,
    )
    compare.tell_skipped(records[0].data, notify)
    return records


def bench(
    candidates: Sequence[Path],
    *,
    runtime: str | None = None,
    trusted: bool = False,
    reference: str | None = None,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    batches: Sequence[int] = (1,),
    rounds: int = 50,
    warmup: int = 5,
    threads: int = 0,
    size: int | None = None,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> tuple[LatencyRecord, ...]:
    """Latency of eager PyTorch and every candidate on noise, interleaved in one process.

    runtime: who runs the candidates; without it, as `check` has it.
    options: of `reference`; the sidecars have those of the model that they name.
    trusted: run engines without a sidecar, which are code that nobody else vouches for.
    threads: 0 takes all cores of this process. size: edge of the images in pixels.

    Raises:
        ArtifactError: a candidate has no sidecar and no reference is given, or they differ.
        UnknownNameError, MissingExtraError: no such runtime, or it is not installed.
        UsageError: options without a reference, or ones that make no sense for it; a runtime
            that does not run a candidate, or only simulates another one.
    """
    opened = [open_artifact(Path(path)) for path in candidates]
    for artifact in opened:
        require_timed(artifact, runtime_for(artifact, runtime))
    named = Named(reference=reference, weights=weights, options=options, size=size)
    loaded = reference_model(opened, named, notify, progress)
    preprocess = chosen_preprocess(common_preprocess(opened, loaded), InputChoice(size=size))
    return compare.latency_records(
        loaded,
        candidates_of(opened, runtime, trusted=trusted),
        make.image_shape(loaded.facts.in_channels, preprocess),
        compare.BenchSettings(
            batches=tuple(dict.fromkeys(batches)),
            rounds=rounds,
            warmup=warmup,
            threads=threads or machine_facts().cores,
        ),
        progress=progress,
    )


def candidates_of(
    opened: Sequence[Artifact], runtime: str | None = None, *, trusted: bool = False
) -> list[compare.Candidate]:
    """Each artifact under its file name; where two would have the same name, under its path.

    runtime: who runs all of them; without it, the one that each was made for. trusted: the user
        vouches for all of them.

    Raises:
        UsageError: an artifact is named twice, or the runtime does not run it.
    """
    paths = [str(artifact.path) for artifact in opened]
    twice = [path for index, path in enumerate(paths) if path in paths[:index]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice", hint="name each candidate once")
    names = [compare.REFERENCE, *(artifact.path.stem for artifact in opened)]
    unique = len(set(names)) == len(names)
    return [
        compare.Candidate(
            name=artifact.path.stem if unique else str(artifact.path),
            artifact=artifact,
            runtime=runtime_for(artifact, runtime).name,
            shown=str(artifact.path),
            trusted=trusted,
        )
        for artifact in opened
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the user says about the model to compare with."""

    reference: str | None
    weights: str | Path | None
    options: ModelOptions
    size: int | None


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


def common_preprocess(opened: Sequence[Artifact], loaded: LoadedModel) -> Preprocess:
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
