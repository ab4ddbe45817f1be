"""What featcache's own classifiers without TensorFlow share: checked features, folds, linear predictions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y, validate_data
from threadpoolctl import threadpool_limits

from featcache.heads.linear import LinearHead
from featcache.heads.pooling import FLOATS, check_spatial, is_spatial
from featcache.heads.private import check_sample_weight
from featcache.heads.vectors import vectors_of
from featcache.processor import cores


class TrainingRows(NamedTuple):
    """Vectors (n, d) float32, positions of their classes (n,), weights (n,), and groups (n,) or None."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    groups: NDArray[Any] | None


class VectorHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of pooled features, with the methods that all of these share."""

    pooling: str

    def fit_folds(
        self,
        X: Any,
        y: Any,
        folds: NDArray[np.int64],
        views: int = 1,
        *,
        sample_weight: NDArray[Any] | None = None,
        groups: NDArray[Any] | None = None,
    ) -> list[Any]:
        """Fit a clone per fold on the rows outside of it, in threads.

        Parameters
        ----------
        X, y, sample_weight, groups
            As ``fit`` takes them. Without `groups`, the views of a photo are one.
        folds : array of shape (n,)
            Number of each row's fold, from 0.
        views : int
            Every so many rows are views of one photo.
        """
        groups = groups_of(len(folds), views) if groups is None else groups

        def fit(fold: int) -> Any:
            rows = folds != fold
            weights = None if sample_weight is None else sample_weight[rows]
            return clone(self).fit(X[rows], y[rows], weights, groups[rows])

        numbers = range(int(folds.max()) + 1)
        # the folds take all cores: threads of their own for small products would only wait for each other
        with threadpool_limits(1, "blas"):
            return list(Parallel(n_jobs=cores(), prefer="threads")(delayed(fit)(fold) for fold in numbers))

    def _take_training(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, class_weight: Any = None
    ) -> TrainingRows:
        """Check training data, learn their shape and return them as vectors."""
        self._validate_params()
        if is_spatial(X):
            X, y = check_X_y(check_spatial(X), y, dtype=FLOATS, allow_nd=True, estimator=self)
            self.n_features_in_ = int(np.prod(X.shape[1:]))
        else:
            X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.features_shape_ = tuple(map(int, X.shape[1:]))
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            (only,) = self.classes_.tolist()
            raise ValueError(f"a classifier needs at least 2 classes; y has one class, {only!r}")
        weights = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weights = weights * compute_sample_weight(class_weight, y)
        groups = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        return TrainingRows(self._pooled(X), labels.astype(np.int64), weights, groups)

    def _vectors(self, X: Any) -> NDArray[np.float32]:
        """Return `X`, features of the shape of ``fit`` or pooled already, as vectors.

        Raises
        ------
        ValueError
            `X` holds NaN or infinity, or its features have another shape.
        """
        check_is_fitted(self)
        X = check_spatial(X) if is_spatial(X) else check_array(X, dtype=FLOATS, input_name="X")
        *_, channels = self.features_shape_
        width = self.n_features_in_ if self.pooling == "flatten" else channels
        if X.shape[1:] not in (self.features_shape_, (width,)):
            raise ValueError(
                f"X has features of shape {X.shape[1:]}, "
                f"but {type(self).__name__} was fitted on {self.features_shape_}"
            )
        return self._pooled(X)

    def _pooled(self, X: NDArray[Any]) -> NDArray[np.float32]:
        return vectors_of(X, self.pooling).astype(np.float32, copy=False)


class LinearVectorHead(VectorHead):
    """A `VectorHead` that decides by ``coef_``, ``intercept_`` and the length of rows."""

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    classes_: NDArray[Any]

    @property
    def _unit_rows(self) -> bool:
        raise NotImplementedError

    def linear_form(self) -> LinearHead:
        """Return the fitted head as a `LinearHead`."""
        check_is_fitted(self)
        link = "sigmoid" if len(self.classes_) == 2 else "softmax"
        return LinearHead(
            self.pooling, self.coef_.T, self.intercept_, self.classes_, link, unit_rows=self._unit_rows
        )

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return logits: (n,) of the second class for two classes, else (n, k)."""
        return self.linear_form().decision_function(self._vectors(X))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the classes' probabilities, (n, k), columns as in ``classes_``."""
        probabilities: NDArray[np.float64] = self.linear_form().predict_proba(self._vectors(X))
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of every row, (n,)."""
        return self.linear_form().predict(self._vectors(X))


def groups_of(rows: int, views: int) -> NDArray[np.int64]:
    """Return the number of each row's photo, where every so many rows are views of one."""
    return np.arange(rows // views).repeat(views)
