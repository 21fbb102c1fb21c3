"""Channels of a float graph scaled, and the answers left as they are: for finer steps in INT8."""
