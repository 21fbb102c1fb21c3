"""The GPU of this machine: what it is, and how it is doing."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

from resdeploy.records import GpuFacts, GpuState


def gpu_here() -> GpuFacts | None:
    """The first GPU that PyTorch sees; None where there is none, or PyTorch cannot use one."""
    if not _has_driver():
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return GpuFacts(
        name=found.name,
        sm=f"{found.major}.{found.minor}",
        memory_gib=round(found.total_memory / 2**30),
        driver=_driver(),
    )


def _has_driver() -> bool:
    """Whether NVIDIA's driver is here; to ask PyTorch takes a second, which this saves most."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def cuda_here() -> str:
    """The version of CUDA that PyTorch was built with; empty where there is no driver for it."""
    if not _has_driver():
        return ""
    import torch

    return torch.version.cuda or ""


def _driver() -> str:
    """The version of the driver, where NVIDIA's management library can be asked."""
    with _nvml() as nvml:
        return "" if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


@contextlib.contextmanager
def _nvml() -> Iterator[Any | None]:
    """NVIDIA's management library, begun and ended; None where it is not installed."""
    try:
        import pynvml
    except ModuleNotFoundError:  # it comes with the extra gpu, and nothing else needs it
        yield None
        return
    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


# Reasons for lower clocks that are not the user's will, as bits of NVML's mask.
# Source: nvml.h, nvmlClocksEventReason*.
_THROTTLES = {
    0x0000000000000004: "power cap of the software",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "temperature limit of the software",
    0x0000000000000040: "temperature limit of the hardware",
    0x0000000000000080: "power brake",
}


def gpu_state() -> GpuState | None:
    """Clocks, power and temperature of the first GPU now; None where nobody can be asked."""
    with _nvml() as nvml:
        return None if nvml is None else state_from(nvml)


def state_from(nvml: Any) -> GpuState:
    """The same, of a management library that has begun."""
    device = nvml.nvmlDeviceGetHandleByIndex(0)
    mask = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)
    return GpuState(
        sm_mhz=nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM),
        memory_mhz=nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM),
        power_w=nvml.nvmlDeviceGetPowerUsage(device) / 1000,
        temperature_c=nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
        throttled=tuple(reason for bit, reason in _THROTTLES.items() if mask & bit),
    )
