"""timm's models: a name of timm's registry enters, its blueprint leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, list_models

from resdeploy.errors import UnknownNameError, UsageError, WeightsError
from resdeploy.models.origins.blueprint import Made, Published, refuse_family_options, seeded
from resdeploy.models.weights.checkpoint import Checkpoint
from resdeploy.models.weights.hub import preprocess_of
from resdeploy.records import ModelOptions, Preprocess

CENTER = "center"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmBlueprint:
    """A name of timm's registry, with or without a tag, and what timm has on record of it.

    num_classes: None leaves what timm has.
    """

    name: str
    record: dict[str, Any]
    preprocess: Preprocess
    options: ModelOptions
    num_classes: int | None
    in_channels: int
    has_own_weights: bool = False

    @property
    def reference(self) -> str:
        """The model reference."""
        return f"timm:{self.name}"

    def make(self, seed: int | None) -> Made:
        """The module with initial weights, which timm.create_model makes."""
        head = {} if self.num_classes is None else {"num_classes": self.num_classes}
        with seeded(seed or 0):
            module = timm.create_model(self.name, in_chans=self.in_channels, **head)
        return Made(
            module=module.eval(),
            preprocess=self.preprocess,
            in_channels=self.in_channels,
            num_classes=None,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        mode = self.record["crop_mode"]
        if mode == CENTER:
            return ()
        return (f"timm prepares images for {self.name} by {mode}; here their centre is cut out",)

    def fitted(self, checkpoint: Checkpoint) -> TimmBlueprint:
        """The same with the number of classes and input channels of a checkpoint."""
        head = checkpoint.tensors.get(_key(self.record.get("classifier")))
        stem = checkpoint.tensors.get(_key(self.record.get("first_conv")))
        return replace(
            self,
            num_classes=head.shape[0] if head is not None and head.ndim else self.num_classes,
            in_channels=stem.shape[1] if stem is not None and stem.ndim == 4 else self.in_channels,
        )

    def pretrained(self) -> str:
        """The repository that timm names for the tag, or for the model's first one."""
        repository = self.record.get("hf_hub_id")
        if not repository:
            raise WeightsError(
                f"timm names no repository with weights for {self.name}",
                hint="name a file, or a repository that has some: hf:ORG/REPO",
            )
        return f"hf:{repository}"

    def published(self) -> dict[str, Published]:
        """Nothing: timm's weights are taken from their repositories."""
        return {}

    def code(self) -> str:
        """The version of timm."""
        return f"timm {timm.__version__}"


def _key(layer: str | tuple[str, ...] | None) -> str:
    """The state-dict key of a layer's weights; of the first where there are several."""
    first = layer if isinstance(layer, str) else (layer or ("",))[0]
    return f"{first}.weight"


def blueprint_of(name: str, options: ModelOptions) -> TimmBlueprint:
    """The blueprint of `NAME` or `NAME.TAG`.

    Raises:
        UnknownNameError: timm has no model, or no tag of it, of this name.
        UsageError: an option that only our own models have, or a model of oblong images.
    """
    record = _record(name)
    reference = f"timm:{name}"
    refuse_family_options(options, reference)
    channels, height, width = record["input_size"]
    if height != width:
        raise UsageError(
            f"{reference} takes images of {width} by {height} pixels; only square ones go here"
        )
    preprocess = preprocess_of({"pretrained_cfg": {**record, "crop_mode": CENTER}})
    assert preprocess is not None  # timm's record always says how images are prepared
    return TimmBlueprint(
        name=name,
        record=record,
        preprocess=preprocess,
        options=options,
        num_classes=options.num_classes,
        in_channels=options.in_channels or channels,
    )


def _record(name: str) -> dict[str, Any]:
    """What timm has on record of a model, every field with its default."""
    architecture, _, _ = name.partition(".")
    if not is_model(architecture):
        raise UnknownNameError("model of timm", name, list_models())
    try:
        found = get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:  # what timm says of a tag that it does not have
        tags = list_models(f"{architecture}.*", pretrained=True)
        raise UnknownNameError("model of timm", name, tags or [architecture]) from error
    return dict(vars(found or PretrainedCfg()))
