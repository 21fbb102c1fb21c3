"""The passes over a float graph, in the order in which they run. A model enters and leaves simpler.

A pass changes the model in place and says what it did. None runs a graph, and each keeps the
names, types and shapes of the inputs and outputs. The file of a pass opens with its algebra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from resdeploy.graph.passes.clean import clean
from resdeploy.graph.passes.facts import PassFacts
from resdeploy.graph.passes.fold_batchnorm import fold_batchnorm
from resdeploy.graph.passes.fold_constants import fold_constants
from resdeploy.graph.passes.mean_to_pool import mean_to_pool
from resdeploy.graph.passes.share_constants import share_constants

PASSES: dict[str, Callable[[ir.Model], PassFacts]] = {
    "clean": clean,  # first, because the others look for initializers
    "fold-constants": fold_constants,  # then weights that were computed are weights
    "fold-batchnorm": fold_batchnorm,
    "mean-to-pool": mean_to_pool,
    "share-constants": share_constants,  # last, because the others make some
}


# What a graph needs that was traced without its weights: PyTorch's own exporters fold as well.
FOLDING = ("clean", "fold-constants", "fold-batchnorm")


def apply_passes(model: ir.Model, names: Iterable[str] = tuple(PASSES)) -> dict[str, PassFacts]:
    """Run these passes once; what each did, by its name."""
    return {name: PASSES[name](model) for name in names}
