"""What a processor can do, read from text, and what follows for INT8 weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdeploy.measure.machine import machine_facts, package_versions, weight_bits_for
from tests import factories

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: {name}
flags\t\t: fpu sse2 ssse3 avx avx2 fma {flags}
power management:

processor\t: 1
model name\t: another one
flags\t\t: fpu avx512_vnni
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimdhp cpuid asimdrdm asimddp
CPU implementer\t: 0x41
"""


@pytest.mark.parametrize(
    ("text", "flags", "bits"),
    [
        (X86.format(name="AMD EPYC 7B13", flags=""), ("avx", "avx2"), 7),
        (
            X86.format(name="Xeon 8124M", flags="avx512f avx512bw"),
            ("avx", "avx2", "avx512f"),
            7,
        ),
        (X86.format(name="i7-12700", flags="avx_vnni"), ("avx", "avx2", "avx_vnni"), 8),
        (
            X86.format(name="Xeon 8275", flags="avx512f avx512_vnni"),
            ("avx", "avx2", "avx512f", "avx512_vnni"),
            8,
        ),
        (ARM, ("asimd", "asimddp"), 8),
    ],
)
def test_flags_decide_the_weight_bits(
    tmp_path: Path, text: str, flags: tuple[str, ...], bits: int
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    machine = machine_facts(cpuinfo)
    assert machine.flags == flags
    found = weight_bits_for(machine)
    assert found.bits == bits
    assert found.reason
    if "model name" in text:
        assert machine.cpu in text.split("\n\n")[0]
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gib >= 1
    assert {"resdeploy", "torch", "numpy"} <= set(machine.versions)


def test_an_unknown_processor_is_taken_for_one_that_saturates(tmp_path: Path) -> None:
    machine = machine_facts(tmp_path / "no such file")
    assert machine.flags == ()
    assert machine.cpu
    assert weight_bits_for(machine).bits == 7


@pytest.mark.parametrize(
    ("flags", "bits", "said"),
    [
        (("avx2", "avx512f", "amx_int8"), 8, "amx_int8"),
        (("asimd",), 8, "Arm"),
        (("avx2",), 7, "no VNNI"),
        ((), 7, "does not say"),
    ],
)
def test_the_reason_names_the_flag(flags: tuple[str, ...], bits: int, said: str) -> None:
    found = weight_bits_for(factories.machine(flags=flags))
    assert found.bits == bits
    assert said in found.reason


def test_the_same_machine_has_the_same_facts() -> None:
    assert machine_facts() == machine_facts()


def test_versions_are_those_of_what_is_installed() -> None:
    import numpy

    assert package_versions(["numpy", "no-such-package"]) == {"numpy": numpy.__version__}
