"""Labels that look alike: spellings of one class, and labels that hold several names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from featcache.images.findings import Finding
from featcache.images.rows import FoundPhoto, Notes
from featcache.images.wording import some


def unify_labels(photos: Sequence[FoundPhoto], learned: Collection[str], notes: Notes) -> list[FoundPhoto]:
    """Give spellings of one label one label; a pure function but for the notes.

    Labels that differ only in blanks or in the Unicode normal form (NFC, NFD) cannot be told apart by people,
    and are one class. Labels that differ in case are not: letters are classes of their own in sets of
    handwriting. They stay two classes, and are pointed out; but a label that no photo is learned from takes
    the spelling of the only one that differs from it in case.

    Parameters
    ----------
    photos : sequence of FoundPhoto
    learned : collection of str
        The splits that heads are trained on.
    notes : Notes
        Receives findings.
    """
    new = _one_spelling(Counter(photo.label for photo in photos), notes)
    known = {new.get(photo.label, photo.label) for photo in photos if photo.split in learned}
    new = _case_of_known(new, {photo.label for photo in photos}, known, notes)
    _note_case(known, notes)
    if not new:
        return list(photos)
    return [replace(photo, label=new[photo.label]) if photo.label in new else photo for photo in photos]


def note_joined_labels(labels: Collection[str], notes: Notes) -> None:
    """Point out labels that seem to hold several names: there is one label per photo."""
    joined = [label for label in sorted(labels) if _is_joined(label, labels)]
    if joined:
        text = (
            f"labels seem to hold several names ({len(joined):,} in all: {some(joined)}). A photo has one "
            "label, so each of these is a class of its own; give every photo one of the names."
        )
        notes.findings.append(Finding("joined_labels", (), text))


def _one_spelling(counts: Mapping[str, int], notes: Notes) -> dict[str, str]:
    """Return the new labels of those that are spelled in several ways, by old label."""
    alike = {label: names for label, names in _grouped(counts, _normal).items() if len(names) > 1}
    if alike:
        label, names = next(iter(alike.items()))
        text = (
            "labels that differ only in blanks or in the form of Unicode are one class "
            f"({len(alike):,} in all, for example {len(names)} spellings of {label!r} with "
            f"{sum(counts[name] for name in names):,} photos)."
        )
        notes.findings.append(Finding("similar_labels", (), text))
    return {name: label for label, names in alike.items() for name in names if name != label}


def _case_of_known(
    new: Mapping[str, str], labels: Collection[str], known: Collection[str], notes: Notes
) -> dict[str, str]:
    """Return `new` with the labels that train has in another case only."""
    by_case = _grouped(known, without_case)
    unknown = sorted(label for label in labels if new.get(label, label) not in known)
    found = {label: alike[0] for label in unknown if len(alike := by_case.get(without_case(label), [])) == 1}
    if found:
        label, learned = next(iter(found.items()))
        text = (
            f"labels that train has in another case are taken as its labels ({len(found):,} in all, for "
            f"example {label!r} as {learned!r})."
        )
        notes.findings.append(Finding("similar_labels", (), text))
    return {**new, **found}


def _note_case(known: Collection[str], notes: Notes) -> None:
    alike = [names for names in _grouped(known, without_case).values() if len(names) > 1]
    if alike:
        text = (
            f"classes differ only in case ({len(alike):,} in all, for example {some(alike[0])}) and stay "
            "apart; if they are one class, give them one name."
        )
        notes.findings.append(Finding("labels_by_case", (), text))


def _grouped(labels: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        groups[key(label)].append(label)
    return groups


def _normal(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).split())


def without_case(label: str) -> str:
    """Return what labels have in common that differ in case, blanks or the form of Unicode."""
    return _normal(label).casefold()


def _is_joined(label: str, labels: Collection[str]) -> bool:
    """Whether it holds a `|`, or another label beside a comma or a semicolon."""
    parts = [part.strip() for part in re.split(r"[|;,]", label)]
    return len(parts) > 1 and ("|" in label or any(part in labels for part in parts))
