"""Gives back a graph whose output has another name."""

import sys

import onnx

model = onnx.load(sys.argv[1])
old = model.graph.output[0].name
model.graph.output[0].name = "renamed"
for node in model.graph.node:
    node.output[:] = ["renamed" if name == old else name for name in node.output]
onnx.save(model, sys.argv[2])
