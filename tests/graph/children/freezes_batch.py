"""Gives back a graph that takes one image only."""

import sys

import onnx

model = onnx.load(sys.argv[1])
for value in (*model.graph.input, *model.graph.output):
    value.type.tensor_type.shape.dim[0].dim_value = 1
onnx.save(model, sys.argv[2])
