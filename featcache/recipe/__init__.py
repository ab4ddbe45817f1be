"""The recipe: its sections and schema, overrides by dotted key, and error messages."""

from featcache.recipe.overrides import parse_override
from featcache.recipe.schema import Recipe, default_cache
from featcache.recipe.sections import (
    DEFAULT_HEADS,
    DEFAULT_SPACE,
    DEFAULT_TRIALS,
    MAX_PIXELS,
    AugmentSettings,
    BaseSettings,
    DataSettings,
    FinetuneSettings,
    HeadSettings,
    Metric,
    Range,
    SelectionSettings,
    SpaceSettings,
    SplitShares,
    SweepSettings,
)

__all__ = [
    "DEFAULT_HEADS",
    "DEFAULT_SPACE",
    "DEFAULT_TRIALS",
    "MAX_PIXELS",
    "AugmentSettings",
    "BaseSettings",
    "DataSettings",
    "FinetuneSettings",
    "HeadSettings",
    "Metric",
    "Range",
    "Recipe",
    "SelectionSettings",
    "SpaceSettings",
    "SplitShares",
    "SweepSettings",
    "default_cache",
    "parse_override",
]
