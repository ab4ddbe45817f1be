"""What can go wrong, as exceptions whose message tells a person what to do next.

Every message says what came in, what is allowed and what to do. The command line prints
it as one line and ends with status 1; nothing else of the package ends a command that way.
"""

import difflib
from collections.abc import Iterable


class FeatcacheError(Exception):
    """Base of every expected failure of featcache."""


class RecipeError(FeatcacheError):
    """A recipe, an override or a head's setting says something that cannot be."""


class DataError(FeatcacheError):
    """The photos are not there, or cannot make a data set: no class, an empty class, an unknown label."""


class ImageError(FeatcacheError):
    """One file could not be decoded; extraction skips it and lists this reason."""


class BaseNetworkError(FeatcacheError):
    """The base cannot be built: unknown network or layer, an image size it does not take."""


class WeightsError(BaseNetworkError):
    """The base's weights are missing, cannot be reached or do not fit the network."""


class FeaturesError(FeatcacheError):
    """What the base gave cannot be stored: not finite, or out of the stored type's range."""


class StoreError(FeatcacheError):
    """The store cannot be written: no room, no permission."""


class ShardError(StoreError):
    """A shard is missing or damaged."""


class FormatError(FeatcacheError):
    """A file is not of featcache's, or of a newer format than this version reads."""


class ModelError(FeatcacheError):
    """A saved model cannot be loaded, or its base is no longer the one it was trained on."""


class ExportError(FeatcacheError):
    """A model cannot be written in another format, or what was written does not say what the model says."""


class OutputError(FeatcacheError):
    """Standard output is closed or cannot be written."""


class TrainingError(FeatcacheError):
    """Training a head failed: the loss diverged."""


class ClassifierError(TrainingError, ValueError):
    """A classifier does not accept its features, its settings or their combination."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known names, or an empty string.

    Parameters
    ----------
    name : str
        What came in.
    known : iterable of str
        What is allowed.
    """
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower[n]) for n in near)}?" if near else ""
