"""Which rows of the store a recipe asks for: every photo in each of its views."""

from __future__ import annotations

from featcache.featurize import Photo
from featcache.images.rows import SPLITS, ImageTable
from featcache.images.views import View, views_of
from featcache.recipe import Recipe
from featcache.store.plan import Key


def photos_of(table: ImageTable, recipe: Recipe) -> list[Photo]:
    """Return every photo with all its views, the views of a photo one after another."""
    views = {split: split_views(split, recipe) for split in SPLITS}
    return [Photo(row.path, row.digest, view) for row in table.rows for view in views[row.split]]


def split_views(split: str, recipe: Recipe) -> list[View | None]:
    """Return the views of a split's photos: heads are trained on views and scored on plain photos."""
    trained_on = split == "train" or (split == "validation" and recipe.data.folds is not None)
    return views_of(recipe.augment if trained_on else None)


def keys_of(table: ImageTable, recipe: Recipe) -> list[Key]:
    """Return the rows of the store that a recipe asks for; a duplicate photo gives them twice."""
    return [key_of(photo.digest, photo.view) for photo in photos_of(table, recipe)]


def key_of(digest: bytes, view: View | None = None) -> Key:
    """Return the store's key of a photo's row; without `view` that of the plain photo, view 0."""
    return Key(digest, 0 if view is None else view.key)
