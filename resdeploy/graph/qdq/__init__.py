"""Float graph and ranges in, Q/DQ graph for one runtime out; what is wrong with one that is there.

A file per target: its rules in words, its tables, and how a graph breaks them. `editor` does
the work by the rules of any, `nodes` knows the float graph, `validate` the quantized one; `blocks`
and `mark` make its first convolution faster.
"""
