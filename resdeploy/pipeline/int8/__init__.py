"""A float ONNX file and images in; an INT8 file that answers nearly the same out.

calibration   images through the graph               -> the table
floats        pixel grid, equalization               -> a float graph that loses less
correction    images through that graph              -> integers and biases for its layers
graph         ranges, Q/DQ pairs, the correction     -> the INT8 file, verified
control       layers back to float                   -> the bound that was asked for
"""
