"""What is known of a photo on its way into a data set: found, then hashed and divided, then in a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from featcache.images.findings import Finding

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class FoundPhoto:
    """A file that was found.

    Attributes
    ----------
    path, label : str
    split : str
        Empty where the source is not divided.
    group : str
        Name of the photos that must not be divided, such as those of one animal; empty for a photo by itself.
    weight : float
        Its sample weight; photos of weight 0 are left out.
    """

    path: str
    label: str
    split: str
    group: str = ""
    weight: float = 1.0


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
    group : str
        Name of its group; empty for a photo by itself.
    weight : float
        Its sample weight.
    """

    path: str
    label: str
    split: str
    digest: bytes
    group: str = ""
    weight: float = 1.0


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
    drawn : tuple of str
        The splits beside train whose photos were drawn and not given, so that train may take one back.
    """

    rows: tuple[ImageRow, ...]
    classes: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    drawn: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.text for finding in self.findings)


@dataclass
class Notes:
    """What is collected on the way beside the photos.

    Attributes
    ----------
    unreadable : list of (str, str)
        Path and reason of each file or folder that could not be read.
    findings : list of Finding
    repeated_links : list of str
        Links that were not followed, because what they lead to is listed elsewhere.
    """

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    repeated_links: list[str] = field(default_factory=list)
