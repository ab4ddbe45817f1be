"""What a recipe, a feature file or a model is, as names and values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from featcache.bases.spec import short_name
from featcache.extraction.stage import keys_of, plan_extraction
from featcache.images.rows import SPLITS, ImageTable
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
        "versions": facts.versions,
    }


def of_recipe(recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Return what stage 1 would do: rows in the store, rows to compute, bytes to write."""
    table, base, plan = plan_extraction(recipe, reporter)
    known: dict[str, Any] = {
        "run": str(recipe.run),
        "cache": str(recipe.cache),
        "classes": list(table.classes),
        "photos": _photos(table),
        "views": recipe.augment.views if recipe.augment else 1,
        "base": short_name(recipe.base),
        "heads": [str(head.name) for head in recipe.heads],
        "warnings": list(table.warnings),
        "findings": [finding.to_json() for finding in table.findings],
    }
    if base is None or plan is None:
        return {
            **known,
            "in_store": 0,
            "to_compute": len(set(keys_of(table, recipe))),
            "note": "this base was not used with this cache yet",
        }
    return {
        **known,
        "base": base.spec.folder_name,
        **base.facts,
        "feature_shape": list(base.spec.feature_shape),
        "in_store": len(plan.reuse),
        "to_compute": len(plan.compute),
        "to_write": human_bytes(plan.bytes_to_write),
        "refusal": plan.refusal,
    }


def _photos(table: ImageTable) -> dict[str, int]:
    counts = Counter(row.split for row in table.rows)
    return {split: counts[split] for split in SPLITS if counts[split]}
