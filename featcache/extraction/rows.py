"""Which rows of the store a recipe asks for: every photo in each of its views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from featcache.featurize import Photo
from featcache.images.division import drawing
from featcache.images.groups import draw_key
from featcache.images.rows import SPLITS, FoundPhoto, ImageTable
from featcache.images.views import View, views_of
from featcache.recipe import Recipe
from featcache.store.plan import Key


class Wanted(Protocol):
    """What is to be computed of each photo; asked by several threads at once."""

    most_views: int

    def views(self, photo: Photo, digest: bytes) -> Sequence[View | None]:
        """Return the views of a photo whose bytes have this digest."""

    def rank(self, photo: Photo) -> int:
        """Return where a photo's rows belong in a shard: those of one rank lie together."""


class PlainPhotos:
    """Every photo once, as it is."""

    most_views = 1

    def views(self, photo: Photo, digest: bytes) -> Sequence[View | None]:
        """Return the plain photo."""
        return (None,)

    def rank(self, photo: Photo) -> int:
        """Return 0: the order stays as it is."""
        return 0


class WantedViews:
    """The views that a recipe asks for, by the photos' splits.

    Parameters
    ----------
    recipe : Recipe
    split_of : callable
        Returns the split of a photo by its path and its digest.
    """

    def __init__(self, recipe: Recipe, split_of: Callable[[str, bytes], str]) -> None:
        self._views = {split: split_views(split, recipe) for split in SPLITS}
        self._split_of = split_of
        self.most_views = max(len(views) for views in self._views.values())

    def views(self, photo: Photo, digest: bytes) -> Sequence[View | None]:
        """Return the views of the photo's split."""
        return self._views[self._split_of(photo.path, digest)]

    def rank(self, photo: Photo) -> int:
        """Return the place of the photo's split."""
        return SPLITS.index(self._split_of(photo.path, photo.digest))


def wanted_of_found(recipe: Recipe, found: Sequence[FoundPhoto]) -> WantedViews:
    """Return the views of photos that are not read yet.

    Some may be in another split later: a class that gets too few takes them back, and groups that hold equal
    photos become one.
    """
    given = _split_by_path((photo.path, photo.split) for photo in found)
    groups = {photo.path: photo.group for photo in found if photo.group}
    draw = drawing({photo.split for photo in found}, recipe.data)
    return WantedViews(recipe, lambda path, digest: draw(given[path], draw_key(groups.get(path, ""), digest)))


def wanted_of_table(recipe: Recipe, table: ImageTable) -> WantedViews:
    """Return the views of the photos of a table."""
    splits = _split_by_path((row.path, row.split) for row in table.rows)
    return WantedViews(recipe, lambda path, digest: splits[path])


def _split_by_path(splits: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return each photo's split; of one that stands in several, the one with most views."""
    found: dict[str, str] = {}
    for path, split in splits:
        if found.setdefault(path, split) != split:
            found[path] = min(found[path], split, key=SPLITS.index)
    return found


def photos_of(table: ImageTable) -> list[Photo]:
    """Return the photos of a table, in its order."""
    return [Photo(row.path, row.digest) for row in table.rows]


def keys_wanted(photos: Iterable[Photo], wanted: Wanted) -> list[Key]:
    """Return the rows of the store of all photos whose digest is known; a duplicate gives them twice."""
    if wanted.most_views == 1:  # the plain photo: there may be very many
        return [Key(photo.digest, 0) for photo in photos if photo.digest]
    return [
        key_of(photo.digest, view)
        for photo in photos
        if photo.digest
        for view in wanted.views(photo, photo.digest)
    ]


def split_views(split: str, recipe: Recipe) -> list[View | None]:
    """Return the views of a split's photos: heads are trained on views and scored on plain photos."""
    trained_on = split == "train" or (split == "validation" and recipe.trains_on_validation)
    return views_of(recipe.augment if trained_on else None)


def key_of(digest: bytes, view: View | None = None) -> Key:
    """Return the store's key of a photo's row; without `view` that of the plain photo, view 0."""
    return Key(digest, 0 if view is None else view.key)
