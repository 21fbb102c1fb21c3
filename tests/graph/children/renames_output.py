"""Gives back a graph whose output has another name."""

import onnx

from resdeploy.graph.children import job

source, result = job()

model = onnx.load(source)
old = model.graph.output[0].name
model.graph.output[0].name = "renamed"
for node in model.graph.node:
    node.output[:] = ["renamed" if name == old else name for name in node.output]
onnx.save(model, result)
