"""What this machine's processor can do, and how many threads may work on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Instructions that multiply bfloat16: without one of them bf16 is slower than f32, not faster.
_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


@cache
def has_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16).

    Callers use it as ``processor.has_bf16()``, so that a test can replace it in one place.
    """
    try:
        # reading a file takes no time; importing OpenVINO to ask it would take half a second in every command
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
        return bool(_BF16_FLAGS & set(flags))
    except OSError:
        import openvino

        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def cores() -> int:
    """Return how many cores this process may use: affinity and limits of containers (cgroups) count."""
    from joblib import cpu_count

    return int(cpu_count())
