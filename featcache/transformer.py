"""Feature extraction as a scikit-learn transformer: from paths to features, through the store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.base import BaseEstimator, TransformerMixin

from featcache.bases.base import Base
from featcache.errors import DataError, RecipeError
from featcache.extraction.compute import Extracted, ensure
from featcache.extraction.rows import PlainPhotos, key_of
from featcache.featurize import Photo
from featcache.images.index import DigestIndex
from featcache.images.source import why_not_opened
from featcache.recipe import MAX_PIXELS, BaseSettings, default_cache
from featcache.store.base_store import Store
from featcache.store.format import INDEX_FILE
from featcache.store.plan import Key


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn paths of photos into features of a frozen network.

    Every photo goes through the network once; a second call, another fold of a grid search or another
    process finds its features in the store.

    Parameters
    ----------
    base : str
        A network of ``keras.applications``, ``hub:NAME`` or a ``.keras`` file.
    image_size : int or (int, int)
        Pixels, (height, width).
    weights : str
        "imagenet", "random" or a weights file.
    cache : path, optional
        Folder of the store; the default is that of the command line.
    pooling : {"avg", "max", "none"}
        With "none" features keep their shape (h, w, c), which scikit-learn's classifiers do not take.
    layer : str, optional
        Where the network is cut; default: its last layer.
    resize, interpolation, preprocessing : str
        As in a recipe's ``[base]``.
    range, color_profile, max_pixels
        As in a recipe's ``[base]``; a range is "full", "minmax" or a pair of numbers.
    engine, precision, dtype : str
        As in a recipe's ``[base]``.
    arguments : dict, optional
        Further arguments of the network's function, such as ``{"alpha": 0.35}``.
    batch_size : int
        Photos per call of the network. It does not change the features.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(FeatureExtractor("MobileNetV2", 160), LogisticRegression())
    >>> model.fit(paths, labels)  # doctest: +SKIP
    """

    def __init__(
        self,
        base: str = "MobileNetV2",
        image_size: int | tuple[int, int] = 160,
        weights: str = "imagenet",
        cache: str | os.PathLike[str] | None = None,
        pooling: str = "avg",
        layer: str | None = None,
        resize: str = "stretch",
        interpolation: str = "bilinear",
        preprocessing: str = "auto",
        range: str | tuple[float, float] = "full",  # noqa: A002
        color_profile: str = "convert",
        max_pixels: int = MAX_PIXELS,
        arguments: dict[str, Any] | None = None,
        engine: str = "auto",
        precision: str = "auto",
        dtype: str = "auto",
        batch_size: int = 16,
    ) -> None:
        self.base = base
        self.image_size = image_size
        self.weights = weights
        self.cache = cache
        self.pooling = pooling
        self.layer = layer
        self.resize = resize
        self.interpolation = interpolation
        self.preprocessing = preprocessing
        self.range = range
        self.color_profile = color_profile
        self.max_pixels = max_pixels
        self.arguments = arguments
        self.engine = engine
        self.precision = precision
        self.dtype = dtype
        self.batch_size = batch_size

    def fit(self, X: Sequence[str | os.PathLike[str]], y: Any = None) -> Self:
        """Check the parameters; there is nothing to learn."""
        self._settings()
        return self

    def transform(self, X: Iterable[str | os.PathLike[str]]) -> NDArray[Any]:
        """Return the features of the photos at the paths `X`, shape (n, c) or (n, h, w, c).

        Raises
        ------
        DataError
            A photo is missing or cannot be decoded: every path must give a row.
        RecipeError, BaseNetworkError, WeightsError, StoreError
            As in `featcache.extraction.stage.extract`.
        """
        store = Store(Path(self.cache) if self.cache is not None else default_cache())
        base = Base(self._settings(), store)
        paths = [os.fspath(path) for path in np.asarray(X, dtype=object).ravel()]
        with DigestIndex(store.folder / INDEX_FILE) as index:
            known = index.find(paths)
            for path in paths:  # before anything is computed
                if path not in known and (reason := why_not_opened(path)):
                    raise DataError(f"{path} {reason}; remove it from the paths")
            photos = [Photo(path, known.get(path, b"")) for path in paths]
            extracted = ensure(photos, PlainPhotos(), base, store, index)
        keys = [_key(path, extracted) for path in paths]
        base_store = store.base_store(base.spec.folder_name, base.spec.to_json())
        places = [extracted.locations[key] for key in keys]
        return base_store.read(places, base.spec.feature_shape, base.spec.dtype)

    def _settings(self) -> BaseSettings:
        given = {key: value for key, value in self.get_params().items() if key not in ("base", "cache")}
        given["arguments"] = given["arguments"] or {}
        try:
            return BaseSettings(name=self.base, **given)
        except ValidationError as error:
            one = error.errors()[0]
            key = ".".join(map(str, one["loc"]))
            raise RecipeError(f"{key} = {one['input']!r}: {one['msg']}") from None

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


def _key(path: str, extracted: Extracted) -> Key:
    digest = extracted.digests[path]
    if isinstance(digest, str):
        raise DataError(f"{path} {digest}; remove it from the paths")
    if reason := extracted.failures.get(key_of(digest)):
        raise DataError(f"{path}: {reason}; remove it from the paths")
    return key_of(digest)
