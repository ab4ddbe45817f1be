"""What should be looked at in a data set, as data: the same for a sentence, JSON and a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "beside_classes",
    "unused_folder",
    "split_folders",
    "inner_folder",
    "nested_classes",
    "empty_class",
    "repeated_links",
    "manifest_guess",
    "unused_columns",
    "empty_lines",
    "repeated_lines",
    "joined_labels",
    "similar_labels",
    "labels_by_case",
    "copies_across_labels",
    "copies_across_splits",
    "not_grouped",
    "joined_groups",
    "weight_zero",
    "groups_across_splits",
    "class_missing",
    "broken_in_train",
    # of `featcache.images.facts`
    "one_colour",
    "nearly_black",
    "few_levels",
    "further_frames",
    "larger_page",
    "transparency_ignored",
]

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """Something about the photos that is allowed but should be looked at.

    Attributes
    ----------
    kind : str
        What it is about, listed in ``docs/formats.md``.
    photos : tuple of str
        Paths of the photos, or of the folder; empty where the finding is about none.
    text : str
        The finding as a sentence, with what to do.
    """

    kind: Kind
    photos: tuple[str, ...]
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON-ready data, with the first 20 photos and their number."""
        return {
            "kind": self.kind,
            "count": len(self.photos),
            "photos": list(self.photos[:_SHOWN]),
            "text": self.text,
        }
