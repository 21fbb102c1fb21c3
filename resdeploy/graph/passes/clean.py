"""What changes no number is taken out: Constant and Identity nodes, what nobody reads.

    Constant → c        becomes  an initializer c
    Identity(x) → y     becomes  x, under the name y where y is an output
    a node or an initializer that leads to no output goes

An Identity from an input, or an initializer, straight to an output stays: both have names
that were promised.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from resdeploy.graph.passes.facts import PassFacts

STEPS = (
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.IdentityEliminationPass(),
    common.RemoveUnusedNodesPass(),
)


def clean(model: ir.Model) -> PassFacts:
    """Remove them; counted are the nodes that are gone."""
    before = len(model.graph)
    for step in STEPS:
        step(model)
    return PassFacts(changed=before - len(model.graph))
