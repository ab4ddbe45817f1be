"""Compares the rows that are asked for with those that the store has, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from featcache.bases.base import Base
from featcache.bases.resolution import Resolution
from featcache.bases.spec import BaseSpec
from featcache.extraction.rows import keys_of
from featcache.images.rows import ImageTable
from featcache.images.table import load_table
from featcache.recipe import Recipe
from featcache.reporter import SILENT, Reporter
from featcache.store.base_store import BaseStore, Store
from featcache.store.plan import Key, Plan, make_plan


def plan_extraction(
    recipe: Recipe, reporter: Reporter = SILENT
) -> tuple[ImageTable, Resolution | None, Plan | None]:
    """Return what `extract` would do, without computing anything and without building a network.

    Returns
    -------
    table : ImageTable
    resolution : Resolution or None
        Of the base. None when it was never built with this store: all rows are then to be computed.
    plan : Plan or None
        None together with `resolution`.
    """
    table = load_table(recipe.data, lambda done, total: reporter.advance("hashing", done, total))
    store = Store(recipe.cache)
    resolution = Base(recipe.base, store).known
    if resolution is None:
        return table, None, None
    return table, resolution, plan_rows(keys_of(table, recipe), resolution.spec, store, reporter)[0]


def plan_rows(
    keys: Sequence[Key], spec: BaseSpec, store: Store, reporter: Reporter
) -> tuple[Plan, BaseStore]:
    """Return which rows to reuse and which to compute, and the base's part of the store."""
    base_store = store.base_store(spec.folder_name, spec.to_json())
    present = base_store.find(keys, reporter.note)
    plan = make_plan(keys, present, spec.row_bytes, store.free_bytes(), store.not_writable())
    return plan, base_store
