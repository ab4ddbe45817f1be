"""``extraction.json``: what the last extraction that computed features did, and where its time went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featcache.files import write_bytes_whole
from featcache.run.layout import EXTRACTION_FILE


def keep_profile(run: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of an extraction; one that computed nothing does not replace one that did.

    Parameters
    ----------
    run : Path
    facts : mapping
        JSON-ready, with the number of ``computed`` rows.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    path = run / EXTRACTION_FILE
    if facts["computed"] or not path.exists():
        write_bytes_whole(path, (json.dumps(facts, indent=1) + "\n").encode())
