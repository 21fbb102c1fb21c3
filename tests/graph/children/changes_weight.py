"""Gives back a graph with one weight of the first convolution changed."""

import onnx
from onnx import numpy_helper

from resdeploy.graph.children import job

source, result = job()

model = onnx.load(source)
first = next(node for node in model.graph.node if node.op_type == "Conv")
weight = next(tensor for tensor in model.graph.initializer if tensor.name == first.input[1])
values = numpy_helper.to_array(weight).copy()
values.flat[0] += 0.1
weight.CopyFrom(numpy_helper.from_array(values, weight.name))
onnx.save(model, result)
