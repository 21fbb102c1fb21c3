"""Simplifiers that misbehave, run as `python -m tests.graph.children.NAME`."""
