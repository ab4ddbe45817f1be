"""What is known of a photo on its way into a data set: found, then hashed and divided, then in a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from featcache.images.findings import Finding

SPLITS = ("train", "validation", "test")

# What folders and manifests call the splits, in any case of letters.
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class FoundPhoto:
    """A file that was found; `split` is empty where the source is not divided."""

    path: str
    label: str
    split: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One photo.

    Attributes
    ----------
    path : str
        Where it is, relative to the working directory unless an absolute path was given.
    label : str
        Its class.
    split : str
        One of `SPLITS`.
    digest : bytes
        SHA-256 of the file's bytes, 32 bytes.
    """

    path: str
    label: str
    split: str
    digest: bytes


@dataclass(frozen=True)
class ImageTable:
    """All photos of a data set.

    Attributes
    ----------
    rows : tuple of ImageRow
        In canonical order: by split as in `SPLITS`, in it by class, in it by path.
    classes : tuple of str
        Sorted; a label's number is its index here. All of them have photos in train.
    unreadable : tuple of (str, str)
        Path and reason of each file or folder that could not be read.
    findings : tuple of Finding
        What is allowed but should be looked at.
    """

    rows: tuple[ImageRow, ...]
    classes: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.text for finding in self.findings)


@dataclass
class Notes:
    """What is collected on the way beside the photos."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
