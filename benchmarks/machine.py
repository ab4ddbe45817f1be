"""What a figure depends on besides the code: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featcache.processor import cores, has_bf16

PACKAGES = ("featcache", "tensorflow", "keras", "openvino", "numpy", "pillow")


def machine() -> dict[str, Any]:
    """Return the machine's facts and the versions, JSON-ready."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "has_bf16": has_bf16(),
        "load_before": round(_load(), 2),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def in_words(facts: dict[str, Any]) -> str:
    """Return the facts as one line, with a warning when the machine has other work."""
    bf16 = "with" if facts["has_bf16"] else "without"
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    busy = (
        "" if facts["load_before"] < 0.5 else f"\nThe machine is busy: its load was {facts['load_before']}."
    )
    return f"{facts['processor']}, {facts['cores']} cores, {bf16} bf16; {versions}{busy}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
