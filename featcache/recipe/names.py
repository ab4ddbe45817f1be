"""Names of heads: each one is the name of a folder, on every operating system."""

from __future__ import annotations

FINETUNED = "finetuned"
SWEEP_BEST = "sweep-best"
RESERVED_NAMES = frozenset({FINETUNED, SWEEP_BEST})
"""Names of the models that `finetune` and `sweep` write: a recipe's heads must not have them."""

MAX_BYTES = 100
"""File systems allow 255 bytes; temporary names add the host, the process and a random part."""

_WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
)


def check_folder_name(name: str) -> None:
    """Raise a ValueError where `name` cannot be the name of a folder everywhere.

    Letters, digits, "-", "_" and "." are allowed; no dot at either end, no device name of Windows, at most
    100 bytes of UTF-8.
    """
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"head name {name!r} must be made of letters, digits, '-', '_' and '.'")
    if name.startswith(".") or name.endswith("."):
        raise ValueError(f"head name {name!r} must not begin or end with '.'")
    if name.partition(".")[0].lower() in _WINDOWS_DEVICES:
        raise ValueError(f"head name {name!r} is the name of a device on Windows; choose another one")
    if len(name.encode()) > MAX_BYTES:
        raise ValueError(
            f"head name {name[:20]!r}… has {len(name.encode())} bytes; at most {MAX_BYTES} are allowed"
        )


def check_head_name(name: str) -> None:
    """Raise a ValueError where a recipe's head must not have this name: an invalid or a reserved one."""
    check_folder_name(name)
    if name.lower() in RESERVED_NAMES:
        raise ValueError(
            f"head name {name!r} is reserved for the model that `featcache "
            f"{'finetune' if name.lower() == FINETUNED else 'sweep'}` writes; choose another name"
        )
