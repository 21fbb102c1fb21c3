"""Our own variants: a name of the family enters, its blueprint leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from resdeploy.errors import WeightsError
from resdeploy.models.family.config import ResNetConfig
from resdeploy.models.family.options import config_with
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.variants import VARIANTS, Variant
from resdeploy.models.origins.blueprint import Made, Published
from resdeploy.models.weights.checkpoint import Checkpoint
from resdeploy.models.weights.known import default_weights, known_weights
from resdeploy.models.weights.load import fit
from resdeploy.records import ModelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyBlueprint:
    """A variant, and its config with the options applied."""

    variant: Variant
    config: ResNetConfig
    options: ModelOptions
    has_own_weights: bool = False

    @property
    def reference(self) -> str:
        """The variant's name."""
        return self.variant.name

    def make(self, seed: int | None) -> Made:
        """The net; without a seed its skeleton, on the meta device."""
        module = skeleton(self.config) if seed is None else build(self.config, seed=seed)
        return Made(
            module=module,
            preprocess=self.variant.preprocess,
            in_channels=self.config.in_channels,
            num_classes=self.config.num_classes,
        )

    def fitted(self, checkpoint: Checkpoint) -> FamilyBlueprint:
        """The same with the number of classes and input channels of a checkpoint."""
        return replace(self, config=fit(self.config, checkpoint))

    def pretrained(self) -> str:
        """The reference of the weights that the variant's table names first."""
        row = default_weights(self.reference)
        if row is None:
            raise WeightsError(
                f"no pretrained weights are known for {self.reference}",
                hint="name a file, or a repository that has some: hf:ORG/REPO",
            )
        return row.reference

    def published(self) -> dict[str, Published]:
        """The rows of weights that are known for the variant."""
        return {
            row.reference: Published(url=row.url, sha256=row.sha256, preprocess=row.preprocess)
            for row in known_weights(self.reference)
        }

    def code(self) -> str:
        """Nothing: the version of resdeploy names it."""
        return ""


def blueprint_of(name: str, options: ModelOptions) -> FamilyBlueprint:
    """The blueprint of a variant.

    Raises:
        UnknownNameError: no variant of this name.
        UsageError: an option makes no sense for it.
    """
    variant = VARIANTS[name]
    config = config_with(variant.config, options, model=name)
    return FamilyBlueprint(variant=variant, config=config, options=options)
