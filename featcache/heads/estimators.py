"""Build the head that a recipe names: one of featcache's own, or one of scikit-learn's by its class name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from featcache.errors import RecipeError, did_you_mean
from featcache.heads.linear import UNIT_ROWS_STEP
from featcache.recipe import HeadSettings

OWN_TYPES = {
    "dense": "featcache.heads.dense.head:DenseHead",
    "logistic": "featcache.heads.logistic:LogisticHead",
    "nearest-centroid": "featcache.heads.baselines:NearestCentroidHead",
    "nearest-neighbors": "featcache.heads.baselines:NearestNeighborsHead",
}
"""featcache's own classifiers by type; each is imported when a recipe names it."""

# In the order of likely use: a name is looked up in one module after the other and the rest stay unimported.
MODULES = (
    "linear_model",
    "svm",
    "neighbors",
    "tree",
    "ensemble",
    "naive_bayes",
    "discriminant_analysis",
    "neural_network",
    "dummy",
    "gaussian_process",
    "calibration",
    "semi_supervised",
    "multiclass",
    "multioutput",
    "model_selection",
)

WANTS_SCALE = frozenset(
    {
        "CalibratedClassifierCV",  # its default is a LinearSVC
        "GaussianProcessClassifier",
        "KNeighborsClassifier",
        "LabelPropagation",
        "LabelSpreading",
        "LinearSVC",
        "LogisticRegression",
        "LogisticRegressionCV",
        "MLPClassifier",
        "NearestCentroid",
        "NuSVC",
        "PassiveAggressiveClassifier",
        "Perceptron",
        "RadiusNeighborsClassifier",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
        "SVC",
    }
)
"""Classifiers which measure distances, penalize weights or descend gradients: one scale helps them.

Trees, naive Bayes and discriminant analysis do not care or would lose what they model.
"""


def build_head(settings: HeadSettings, random_state: int | None = None) -> Any:
    """Return an unfitted classifier for features of shape (n, h, w, c) or (n, c).

    Parameters
    ----------
    settings : HeadSettings
        A head of a recipe. A ``type`` of `OWN_TYPES` gives featcache's own classifier, a scikit-learn class
        name a pipeline of `Pool`, what ``scale`` and ``pca`` ask for, and the classifier.
    random_state : int, optional
        Used where the classifier takes one and the recipe sets none.

    Returns
    -------
    scikit-learn classifier

    Raises
    ------
    RecipeError
        The type or a parameter is unknown, or a value is impossible.
    """
    if settings.type in OWN_TYPES:
        return _own(settings, random_state)
    return _pipeline(_configured(_find(settings), settings, random_state), settings)


def _own(settings: HeadSettings, random_state: int | None) -> Any:
    kind = pkgutil.resolve_name(OWN_TYPES[settings.type])
    taken = inspect.signature(kind).parameters
    steps = {"pooling": settings.pooling, "pca": settings.pca, "scale": settings.scaling}
    for name, value in steps.items():
        if name not in taken and value not in (None, "auto", "none"):
            raise RecipeError(
                f"head {_name(settings)}: {name} = {getattr(settings, name)!r} does not go with "
                f"type = {settings.type!r}; leave it out"
            )
    return _configured(kind, settings, random_state, {key: steps[key] for key in steps if key in taken})


def _pipeline(classifier: Any, settings: HeadSettings) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    from featcache.heads.pooling import Pool

    scaling = settings.scaling
    if scaling == "auto":
        # principal components differ in scale because they differ in weight: it would blow up the least
        scaling = "standard" if settings.type in WANTS_SCALE and not settings.pca else "none"
    steps: list[tuple[str, Any]] = [("pool", Pool(settings.pooling))]
    if scaling == "l2":
        steps.append((UNIT_ROWS_STEP, Normalizer()))
    if settings.pca:
        steps.append(("pca", PCA(settings.pca, random_state=0)))
    if scaling == "standard":
        steps.append(("scale", StandardScaler()))
    return Pipeline([*steps, ("classifier", classifier)])


def _find(settings: HeadSettings) -> Any:
    """Return the scikit-learn class of the head's type."""
    kind = _lookup(settings.type)
    if kind is None:
        known = _known_types()
        raise RecipeError(
            f"head {_name(settings)}: type {settings.type!r} is neither featcache's own nor a "
            f"scikit-learn classifier.{did_you_mean(settings.type, known)} There are {', '.join(known)}"
        )
    if _needs_estimator(kind):
        raise RecipeError(
            f"head {_name(settings)}: {settings.type} consists of other estimators, which no recipe can say: "
            "name a classifier that stands alone, for example LogisticRegression"
        )
    return kind


def _lookup(name: str) -> Any:
    for module_name in MODULES:
        kind = getattr(importlib.import_module(f"sklearn.{module_name}"), name, None)
        if kind is not None:
            return kind if _is_classifier_class(kind) else None
    return None


def _is_classifier_class(kind: Any) -> bool:
    from sklearn.base import BaseEstimator, ClassifierMixin

    kinds = (BaseEstimator, ClassifierMixin)
    return inspect.isclass(kind) and not inspect.isabstract(kind) and all(issubclass(kind, k) for k in kinds)


def _known_types() -> list[str]:
    """Return every type that `build_head` takes."""
    from sklearn.utils import all_estimators

    alone = [name for name, kind in all_estimators(type_filter="classifier") if not _needs_estimator(kind)]
    return [*OWN_TYPES, *alone]


def _needs_estimator(kind: Any) -> bool:
    parameters = inspect.signature(kind).parameters.values()
    required = any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)
    return required or kind.__name__ == "SelfTrainingClassifier"  # its default, None, is refused by fit


def _configured(
    kind: Any, settings: HeadSettings, random_state: int | None, steps: Mapping[str, Any] | None = None
) -> Any:
    """Return `kind` with the recipe's parameters and the generic `steps`, checked by scikit-learn itself."""
    known = sorted(inspect.signature(kind).parameters)
    _refuse_unknown(settings, sorted({*known, *HeadSettings.model_fields}))
    parameters = dict(settings.parameters) | dict(steps or {})
    if random_state is not None and "random_state" in known:
        parameters.setdefault("random_state", random_state)
    try:
        classifier = kind(**parameters)
        if hasattr(classifier, "_validate_params"):
            classifier._validate_params()
    except (ValueError, TypeError) as error:
        raise RecipeError(f"head {_name(settings)}: {error}") from None
    return classifier


def _refuse_unknown(settings: HeadSettings, known: list[str]) -> None:
    for key in settings.parameters:
        if key not in known:
            raise RecipeError(
                f"head {_name(settings)}: unknown key {key!r}.{did_you_mean(key, known)} "
                f"{settings.type} takes {', '.join(known)}"
            )


def _name(settings: HeadSettings) -> str:
    return repr(settings.name or settings.default_name)
