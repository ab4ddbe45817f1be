"""What a recipe, a feature file or a model is, as names and values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from featcache.bases.spec import short_name
from featcache.extraction.planning import ExtractionPlan, plan_extraction
from featcache.images.rows import SPLITS
from featcache.model_photos import ModelPhotos
from featcache.recipe import Recipe
from featcache.reporter import Reporter
from featcache.run.layout import HEADS_FILE, MODEL_FILE
from featcache.store.feature_file import Features
from featcache.store.plan import human_bytes


def is_feature_file(path: Path) -> bool:
    """Whether `path` is meant as a feature file."""
    return path.is_file() and path.suffix.lower() in (".h5", ".hdf5")


def is_model(path: Path) -> bool:
    """Whether `path` is the folder of a model or of a run with models, or meant as a packed model."""
    if path.is_file():
        return path.suffix.lower() == ".zip"
    return (path / MODEL_FILE).is_file() or (path / HEADS_FILE).is_file()


def of_feature_file(path: Path) -> dict[str, Any]:
    """Return the facts of a feature file; opening it checks its shards."""
    with Features(path) as features:
        return {
            "file": str(path),
            "kind": "feature file, packed" if features.packed else "feature file",
            "classes": list(features.classes),
            "rows": {split: len(features[split]) for split in features.splits},
            "views": {split: features[split].views for split in features.splits},
            "shape": {split: list(features[split].shape) for split in features.splits},
            "dtype": str(features[features.splits[0]].dtype),
            "base": features.base,
            "skipped": len(features.skipped),
        }


def of_model(path: Path) -> dict[str, Any]:
    """Return the facts of a model, without loading its head."""
    from featcache.model import find_model
    from featcache.model_files import read_model

    folder = find_model(path)
    facts = read_model(folder)
    return {
        "model": str(folder),
        "kind": "model" if facts.files.members is None else "model, packed",
        "head": facts.name,
        "classes": list(facts.classes),
        "base": facts.spec.to_json(),
        "scores": facts.scores,
        "photos": _photos_of_model(facts.photos),
        "versions": facts.versions,
    }


def _photos_of_model(photos: ModelPhotos | None) -> dict[str, int] | None:
    """Count the photos that a model was trained on and chosen on; None where it does not know them."""
    return None if photos is None else {"trained": len(photos.trained), "chosen": len(photos.chosen)}


def of_recipe(recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Return what stage 1 would do: rows in the store, rows to compute, bytes to write."""
    plan = plan_extraction(recipe, reporter)
    known: dict[str, Any] = {
        "run": str(recipe.run),
        "cache": str(recipe.cache),
        "classes": sorted({photo.label for photo in plan.found}),
        "photos": _photos(plan),
        "views": recipe.augment.views if recipe.augment else 1,
        "base": short_name(recipe.base),
        "heads": [str(head.name) for head in recipe.heads],
        "warnings": [finding.text for finding in plan.findings],
        "findings": [finding.to_json() for finding in plan.findings],
    }
    if plan.unread:
        known["unread"] = plan.unread
        known["note"] = (
            f"{plan.unread:,} photos were not read yet: splits are drawn and numbers of rows are exact when "
            "they are"
        )
    if plan.resolution is None or plan.rows is None:
        note = "this base was not used with this cache yet"
        return {**known, "in_store": 0, "to_compute": plan.to_compute, "note": known.get("note", note)}
    return {
        **known,
        "base": plan.resolution.spec.folder_name,
        **plan.resolution.facts,
        "feature_shape": list(plan.resolution.spec.feature_shape),
        "in_store": len(plan.rows.reuse),
        "to_compute": plan.to_compute,
        "to_write": human_bytes(plan.rows.bytes_to_write),
        "refusal": plan.rows.refusal,
    }


def _photos(plan: ExtractionPlan) -> dict[str, int]:
    """Count the photos by split; those of a source that is not divided, and not read yet, as "all"."""
    photos = plan.found if plan.table is None else plan.table.rows
    counts = Counter(photo.split or "all" for photo in photos)
    return {split: counts[split] for split in (*SPLITS, "all") if counts[split]}
