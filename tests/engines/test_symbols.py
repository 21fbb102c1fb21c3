"""Nothing that TensorRT 11 removed, or 10.12 does not have, is used: by the names in the code.

What was there when was read from the sources of the bindings at the tags v8.6.1, v10.0.1, v10.12.0,
v10.16 and v11.1 of NVIDIA/TensorRT (python/src/infer/*.cpp, parsers/pyOnnx.cpp).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

ENGINES = ROOT / "resdeploy" / "engines"

# Every name of TensorRT's that the code may use; all are in 10.12, 10.16 and 11.1.
USED = {
    # module
    "Builder", "BuilderFlag", "DataType", "Dims", "HardwareCompatibilityLevel", "ILogger",
    "IProfiler", "IProgressMonitor", "LayerInformationFormat", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParser", "OnnxParserRefitter", "ProfilingVerbosity",
    "Refitter", "Runtime", "TensorIOMode",
    "__version__", "Severity",
    # members of enumerations
    "AMPERE_PLUS", "DETAILED", "ERROR", "INPUT", "JSON", "OUTPUT", "REFIT", "REFIT_IDENTICAL",
    "SAME_COMPUTE_CAPABILITY", "STRIP_PLAN", "STRONGLY_TYPED", "TF32", "VERSION_COMPATIBLE",
    "WARNING", "WORKSPACE",
    # builder, network, parser, config
    "create_network", "create_builder_config", "create_optimization_profile",
    "build_serialized_network", "parse_from_file", "num_errors", "get_error", "desc", "node_name",
    "node_operator", "num_inputs", "get_input", "num_outputs", "get_output", "num_layers",
    "get_layer", "shape", "dtype", "profiling_verbosity", "builder_optimization_level",
    "clear_flag", "set_flag", "set_memory_pool_limit", "hardware_compatibility_level",
    "add_optimization_profile", "set_shape", "create_timing_cache", "set_timing_cache",
    "serialize", "progress_monitor",
    # runtime
    "deserialize_cuda_engine", "create_engine_inspector", "get_engine_information",
    "num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype",
    "get_tensor_shape", "get_tensor_profile_shape", "num_optimization_profiles",
    "create_execution_context", "set_optimization_profile_async", "set_input_shape",
    "infer_shapes", "set_tensor_address", "execute_async_v3", "profiler", "refit_from_file",
    "refit_cuda_engine",
}  # fmt: skip

# Of TensorRT-RTX alone.
RTX = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}

# Removed in 10.0, or in 11.0.
GONE = {
    "num_bindings", "get_binding_shape", "get_binding_dtype", "get_binding_name",
    "binding_is_input", "execute_async_v2", "execute_v2", "set_binding_shape", "build_engine",
    "max_workspace_size", "max_batch_size", "EXPLICIT_BATCH", "FP16", "BF16", "INT8", "FP8", "FP4",
    "INT4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS",
    "REJECT_EMPTY_ALGORITHMS", "WEIGHTLESS", "IInt8Calibrator", "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator", "IInt8LegacyCalibrator",
    "CalibrationAlgoType", "QuantizationFlag", "int8_calibrator", "set_calibration_profile",
    "get_calibration_profile", "set_quantization_flag", "algorithm_selector", "dynamic_range",
    "set_dynamic_range", "reset_dynamic_range", "precision", "precision_is_set",
    "reset_precision", "set_output_type", "output_type_is_set", "compute_precision",
    "platform_has_fast_fp16", "platform_has_fast_int8", "platform_has_tf32",
    "create_execution_context_without_device_memory", "device_memory_size",
    "get_device_memory_size_for_profile", "has_implicit_batch_dimension",
    "weight_streaming_budget", "all_shape_inputs_specified", "supports_model",
    "parse_with_weight_descriptors", "IStreamReader", "CUBLAS", "CUBLAS_LT", "CUDNN",
}  # fmt: skip

# Objects of TensorRT's, by what the code calls them.
OBJECTS = {
    "api", "builder", "cache", "config", "context", "engine", "error", "images", "inspector",
    "kind", "layer", "levels", "network", "parser", "profile", "refitter", "rtx", "_runtime",
    "settings", "tensor",
}  # fmt: skip


def attributes(path: Path) -> Iterator[tuple[str, str]]:
    """Object and attribute of every `object.attribute`, chains by their last two names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            yield getattr(node.value, "id", getattr(node.value, "attr", "")), node.attr


CALLS = [
    ENGINES / name
    for name in (
        "api.py",
        "build.py",
        "inspector.py",
        "log.py",
        "profile.py",
        "refit.py",
        "runner.py",
    )
]


def test_nothing_that_was_removed_is_used() -> None:
    used = {name for path in CALLS for _, name in attributes(path)}
    assert used & GONE == set()
    assert set() == USED & GONE


def test_the_list_says_what_is_used() -> None:
    """The names of `Api`, and every attribute of the objects that it makes."""
    used = {
        name
        for path in CALLS
        for owner, name in attributes(path)
        if owner in OBJECTS or owner in USED | RTX or owner == "trt"
    }
    ours = {name for name in used if name not in USED | RTX}
    # Of our own records, of ctypes, NumPy and PyTorch, and of TensorRT's types in annotations.
    assert {name for name in ours if not name.startswith("I")} <= OURS, sorted(ours - OURS)
    assert USED - used <= {"num_inputs", "num_outputs", "__version__"}, sorted(USED - used)


# Attributes of objects of ours that are called like TensorRT's.
OURS = {
    "__init__",
    "get",
    "name",
    "lower",
    "data_ptr",
    "min",
    "opt",
    "max",
    "items",
    "append",
    "ParserError",
    "module",
    "times",
}
