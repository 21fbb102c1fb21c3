"""Small constants that are equal become one.

    f(x, c) and g(y, d),  c = d bit by bit    become    f(x, c) and g(y, c)

Folding makes them: every convolution without a bias gets one from its BatchNorm, and those of a
network that was never trained are all zeros. Large weights are not compared: they differ.
"""

from __future__ import annotations

import onnx_ir as ir

from resdeploy.graph.bare import LARGE
from resdeploy.graph.passes.facts import PassFacts


def share_constants(model: ir.Model) -> PassFacts:
    """Share them; counted are the constants that are gone."""
    graph = model.graph
    kept: dict[tuple[object, ...], ir.Value] = {}
    before = len(graph.initializers)
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        promised = value.is_graph_input() or value.is_graph_output()
        if tensor is None or promised or tensor.nbytes >= LARGE or tensor.dtype.is_string():
            continue
        key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        first = kept.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            del graph.initializers[name]
    return PassFacts(changed=before - len(graph.initializers))
