"""What the tests of the table share: sets of small files, and their table in one call."""

from __future__ import annotations

from pathlib import Path

import pytest

from featcache.errors import DataError
from featcache.images.index import DigestIndex
from featcache.images.rows import ImageTable, Notes
from featcache.images.table import assemble, find_photos, read_digests
from featcache.recipe import DataSettings


def put(folder: Path, *paths: str) -> Path:
    """Write files whose content is their path, so that no two are equal."""
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    return folder


def many(folder: Path, counts: dict[str, int]) -> Path:
    return put(folder, *(f"{name}/{number:04d}.jpg" for name, n in counts.items() for number in range(n)))


def table_of(**data) -> ImageTable:
    settings, notes = DataSettings(**data), Notes()
    found = find_photos(settings, notes)
    with DigestIndex(None) as index:
        digests = read_digests([photo.path for photo in found], index)
    return assemble(found, digests, settings, notes)


def splits_of(table: ImageTable) -> dict[bytes, str]:
    return {row.digest: row.split for row in table.rows}


def kinds(table: ImageTable) -> list[str]:
    return [finding.kind for finding in table.findings]


def refusal(**data) -> str:
    with pytest.raises(DataError) as caught:
        table_of(**data)
    return str(caught.value)


def manifest(folder: Path, text: str, name: str = "photos.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    return file
