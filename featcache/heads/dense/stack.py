"""Trains dense heads together: those that can share batches and products are one stack."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_high
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state, compute_class_weight

from featcache.errors import TrainingError
from featcache.heads.dense.feed import (
    NO_FOLD,
    Feed,
    InMemory,
    Rows,
    Streamed,
    is_feature_source,
    view_count,
    weights_of,
)
from featcache.heads.dense.holdout import checked_groups, checked_weights, draw_groups, draw_per_class
from featcache.heads.dense.training import (
    Measures,
    Prune,
    Trained,
    TrainingParams,
    glorot_uniform,
    train,
)
from featcache.heads.vectors import vectors_of

MAX_MEMORY = 1 << 30
"""Bytes that features on disk may take in memory at once, unless the caller says otherwise."""

FEWEST_TO_HOLD_OUT = 30
"""With fewer photos none is held out for early stopping: three of them could not say when to stop."""


class StackableHead(Protocol):
    """What a stack needs of a head, which `featcache.heads.dense.head.DenseHead` has."""

    activation: str
    pooling: str
    pca: int | None
    optimizer: str
    momentum: float
    epochs: int
    batch_size: int
    class_weight: str | dict[Any, float] | None
    early_stopping: bool
    validation_fraction: float
    random_state: int | np.random.RandomState | None

    @property
    def _hidden(self) -> tuple[int, ...]: ...

    def _validate_params(self) -> None: ...

    def _take(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]: ...

    def _check(self, X: Any) -> Any: ...

    def _training_params(
        self, binary: bool, class_weights: tuple[float, ...] | None, held_out: int
    ) -> TrainingParams: ...

    def _keep(self, trained: Trained, facts: dict[str, Any]) -> None: ...


def fit_together(
    heads: Sequence[StackableHead],
    X: Any,
    y: Any = None,
    validation_data: Any = None,
    *,
    views: int = 1,
    prune: Prune | None = None,
    max_memory: int = MAX_MEMORY,
    sample_weight: Any = None,
    groups: Any = None,
) -> list[TrainingError | None]:
    """Fit dense heads in place, many at a time.

    Heads of the same units, activation, pooling, pca, optimizer, momentum, epochs, batch size and integer
    `random_state` see the same batches and are one stack; learning rate, dropout, l2, label smoothing,
    class weights and early stopping are each head's own. A head comes out as if it was trained alone.

    Parameters
    ----------
    heads : sequence of DenseHead
    X, y, validation_data, views, sample_weight, groups
        As `DenseHead.fit` takes them.
    prune : callable, optional
        Called as ``prune(epoch, measures)`` after every epoch of a stack: the epoch's number, from 1, and
        by place in `heads` the measures (``loss``, ``accuracy``, with validation data ``val_loss`` and
        ``val_accuracy``) of the heads still in training. The places it returns are stopped: those
        heads keep the weights and the history they have.
    max_memory : int
        Bytes that `X` may take in memory, where it is a split of a feature file.

    Returns
    -------
    list of TrainingError or None
        For every head None, or why it could not be trained.

    Raises
    ------
    ValueError
        A parameter is impossible, `X` holds NaN or infinity, or `y` has only one class.
    """
    for head in heads:
        head._validate_params()
    data = _Data.checked(
        heads[0],
        X,
        y,
        validation_data,
        views=views,
        max_memory=max_memory,
        sample_weight=sample_weight,
        groups=groups,
    )
    return _fit([_Member(head) for head in heads], data, prune)


def fit_folds(
    heads: Sequence[StackableHead],
    X: Any,
    y: Any,
    folds: NDArray[np.integer[Any]],
    views: int = 1,
    *,
    sample_weight: Any = None,
) -> list[list[Any]]:
    """Fit each head once per fold, on the rows outside of it; all of them are members of stacks.

    A head that stops early has no rows left to decide by: its fold is there to score it, and the epoch with
    the least loss on the fold would make that score too good. It is therefore trained a second time, for the
    number of epochs that the other folds found best (their median, the higher of two in the middle).

    Parameters
    ----------
    heads : sequence of DenseHead
        They stay as they are: clones are fitted.
    X : array of shape (n, h, w, c) or (n, c)
    y : array of shape (n,)
    folds : array of shape (n,)
        Number of each row's fold, from 0; one for all views of a photo.
    views : int
        As `DenseHead.fit` takes it; heads are measured on the first view, the plain photo.
    sample_weight : array of shape (n,), optional

    Returns
    -------
    list of lists
        For every head its clones by fold, each measured on its fold after every epoch; in a
        clone's place why it could not be trained.
    """
    count = int(folds.max()) + 1
    for head in heads:
        head._validate_params()
    data = _Data.checked(clone(heads[0]), X, y, folds=folds, views=views, sample_weight=sample_weight)
    fitted = _fit_on_folds(heads, range(count), data)
    places = [at for at, head in enumerate(heads) if head.early_stopping and _all_fitted(fitted[at])]
    if places:
        epochs = [[one.best_epoch_ for one in fitted[at]] for at in places]
        again = _fit_on_folds([heads[at] for at in places], range(count), data, epochs)
        for at, clones in zip(places, again, strict=True):
            fitted[at] = clones
    return fitted


def _all_fitted(clones: Sequence[Any]) -> bool:
    return not any(isinstance(one, TrainingError) for one in clones)


def _fit_on_folds(
    heads: Sequence[StackableHead], folds: range, data: _Data, best_epochs: Any = None
) -> list[list[Any]]:
    """Fit clones by head and fold; with `best_epochs`, by head and fold, as long as the other folds did."""
    members = [_Member(clone(head), fold) for head in heads for fold in folds]
    prune = None
    if best_epochs is not None:
        for member in members:
            member.head.early_stopping = False
        prune = _stopping_at([of for epochs in best_epochs for of in epochs_of_others(epochs)])
    errors = _fit(members, data, prune)
    found = [error or member.head for member, error in zip(members, errors, strict=True)]
    return [found[start : start + len(folds)] for start in range(0, len(found), len(folds))]


def epochs_of_others(best_epochs: Sequence[int]) -> list[int]:
    """Return for each fold the median of the best epochs of the other folds, the higher of two."""
    return [median_high([*best_epochs[:fold], *best_epochs[fold + 1 :]]) for fold in range(len(best_epochs))]


def _stopping_at(epochs: Sequence[int]) -> Prune:
    """Return what ends the training of each member after its number of epochs."""

    def prune(epoch: int, measures: Mapping[int, Measures]) -> Collection[int]:
        return [place for place in measures if epoch >= epochs[place]]

    return prune


class _Member(NamedTuple):
    """A head of a stack, and the fold that it does not train on."""

    head: StackableHead
    held_out: int = NO_FOLD


def _fit(members: Sequence[_Member], data: _Data, prune: Prune | None = None) -> list[TrainingError | None]:
    errors: list[TrainingError | None] = [None] * len(members)
    stacks: dict[Any, list[int]] = defaultdict(list)
    for place, (head, _) in enumerate(members):
        stacks[_stack_of(head, data)].append(place)
    for places in stacks.values():
        results = _fit_stack([members[place] for place in places], data, _renumbered(prune, places))
        for place, result in zip(places, results, strict=True):
            if isinstance(result, TrainingError):
                errors[place] = result
    return errors


def _stack_of(head: StackableHead, data: _Data) -> tuple[Any, ...]:
    """Return what heads of one stack have in common, as something that can be compared."""
    state = head.random_state
    seed = ("seed", int(state)) if isinstance(state, int | np.integer) else ("alone", id(head))
    held_out = head.validation_fraction if data.holds_out_for(head) else None
    return (
        head._hidden,
        head.activation,
        head.pooling,
        head.pca,
        head.optimizer,
        head.momentum,
        head.epochs,
        head.batch_size,
        seed,
        held_out,
    )


def _renumbered(prune: Prune | None, places: Sequence[int]) -> Prune | None:
    """Let `prune` speak of places in the whole sequence, and the training of places in the stack."""
    if prune is None:
        return None
    numbers = {place: number for number, place in enumerate(places)}

    def renumbered(epoch: int, measures: Mapping[int, Measures]) -> Collection[int]:
        found = prune(epoch, {places[number]: measured for number, measured in measures.items()})
        return [numbers[place] for place in found]

    return renumbered


def _fit_stack(
    members: Sequence[_Member], data: _Data, prune: Prune | None
) -> Sequence[Trained | TrainingError]:
    first = members[0].head
    random = check_random_state(first.random_state)
    if data.holds_out_for(first):
        data = data.with_held_out(first.validation_fraction, random)
    try:
        feeds = data.feeds(first.pooling, first.pca)
    except TrainingError as error:
        return [error] * len(members)
    rng = np.random.default_rng(random.randint(np.iinfo(np.int32).max))
    start = glorot_uniform(rng, [feeds.train.width, *first._hidden, data.outputs])
    params = [
        head._training_params(data.outputs == 1, data.class_weights(head, fold), fold)
        for head, fold in members
    ]
    if feeds.validation is None and data.folds is None:
        params = [replace(one, patience=None) for one in params]
        _warn_of_all_epochs(members, data)
    results = train(start, feeds.train, feeds.validation, params, rng, prune, data.has_weights)
    for (head, _), result in zip(members, results, strict=True):
        if isinstance(result, Trained):
            head._keep(_on_features(result, feeds.projection), {**data.facts, "classes_": data.classes})
    return results


def _warn_of_all_epochs(members: Sequence[_Member], data: _Data) -> None:
    if not any(head.early_stopping for head, _ in members):
        return
    if is_feature_source(data.features):
        why = "from features on disk"
    else:
        of = " in these groups" if data.groups is not None else ""
        why = f"of {data.photos:,} photos{of}, which are too few,"
    warnings.warn(
        f"early_stopping had no validation data, and {why} none are held out: all "
        f"{members[0].head.epochs:,} epochs were trained",
        UserWarning,
        stacklevel=5,
    )


class _Projection(NamedTuple):
    """Principal components of features: mean (d,) and components (p, d), float32."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def __call__(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Project vectors (n, d) on the components, (n, p)."""
        centred: NDArray[np.float32] = vectors.astype(np.float32, copy=False) - self.mean
        return centred @ self.components.T


def _on_features(trained: Trained, projection: _Projection | None) -> Trained:
    """Let the first layer take features where it was trained on their projection: both are linear."""
    if projection is not None:
        kernel = projection.components.T @ trained.weights[0]
        trained.weights[1] = trained.weights[1] - projection.mean @ kernel
        trained.weights[0] = kernel
    return trained


_Validation = tuple[Any, NDArray[np.int32], NDArray[np.float32] | None]
"""Features, positions of the class, and weights."""


class _Feeds(NamedTuple):
    """What a head trains on, is measured on, and what features went through to get there."""

    train: Feed
    validation: Feed | None
    projection: _Projection | None = None


@dataclass
class _Data:
    """Training data, pooled and projected once for all heads that ask for the same.

    Attributes
    ----------
    features : array or FeatureSource
    labels : array of shape (n,)
        Positions in `classes`.
    folds : array of shape (n,) or None
    weights : float32 array of shape (n,), or None
    groups : array of shape (n,) or None
    validation : (array or FeatureSource, array, array or None) or None
        Features, positions of the class and weights.
    classes : array of shape (k,)
    facts : dict
        What heads learn of the features: scikit-learn's attributes and ``features_shape_``.
    views : int
        Of each photo: rows that follow each other in an array, or that a source has.
    max_memory : int
    """

    features: Any
    labels: NDArray[np.int32]
    folds: NDArray[Any] | None
    weights: NDArray[np.float32] | None
    groups: NDArray[Any] | None
    validation: _Validation | None
    classes: NDArray[Any]
    facts: dict[str, Any]
    views: int
    max_memory: int
    _feeds: dict[tuple[str, int | None], _Feeds] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        head: StackableHead,
        X: Any,
        y: Any,
        validation_data: Any = None,
        *,
        folds: NDArray[Any] | None = None,
        views: int = 1,
        max_memory: int = MAX_MEMORY,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> _Data:
        """Check the data as `DenseHead.fit` takes them; errors name `head`."""
        features, y = head._take(X, y)
        weights = checked_weights(weights_of(features) if sample_weight is None else sample_weight, len(y))
        groups = None if groups is None else checked_groups(groups, len(y))
        views = view_count(features) if is_feature_source(features) else _checked_views(views, y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            (only,) = classes.tolist()
            raise ValueError(f"a classifier needs at least 2 classes; y has one class, {only!r}")
        facts = {name: vars(head)[name] for name in _FACTS if name in vars(head)}
        validation = None if validation_data is None else _checked_validation(head, validation_data, classes)
        return cls(
            features,
            labels.astype(np.int32),
            folds,
            weights,
            groups,
            validation,
            classes,
            facts,
            views,
            max_memory,
        )

    @property
    def outputs(self) -> int:
        """Outputs of a head: 1 for two classes, else one for each."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def has_weights(self) -> bool:
        """Whether rows have weights of their own."""
        return self.weights is not None or (self.validation is not None and self.validation[2] is not None)

    def class_weights(self, head: StackableHead, held_out: int) -> tuple[float, ...] | None:
        """Return the weights by class that `head` asks for."""
        if head.class_weight is None:
            return None
        rows = slice(None) if self.folds is None else self.folds != held_out
        labels = self.labels[rows]
        if head.class_weight == "balanced" and self.weights is not None:
            by_class = np.bincount(labels, self.weights[rows], minlength=len(self.classes))
            return tuple((by_class.sum() / (len(self.classes) * by_class)).tolist())
        weights = compute_class_weight(head.class_weight, classes=self.classes, y=self.classes[labels])
        return tuple(weights.tolist())

    @property
    def photos(self) -> int:
        """Number of photos: rows, divided by the views of each."""
        return len(self.labels) // self.views

    def holds_out_for(self, head: StackableHead) -> bool:
        """Say whether `head` wants validation rows, and there are none but can be some."""
        wants = bool(head.early_stopping) and self.validation is None and self.folds is None
        return wants and not is_feature_source(self.features) and self.photos >= FEWEST_TO_HOLD_OUT

    def with_held_out(self, share: float, random: np.random.RandomState) -> _Data:
        """Return the data with a share of the photos, drawn per class, for validation."""
        labels = self.labels[:: self.views]
        if self.groups is None:
            drawn = draw_per_class(labels, share, random)
        else:
            drawn = draw_groups(labels, self.groups[:: self.views], share, random)
        if not drawn.any():
            return self
        photos, held_out = np.flatnonzero(~drawn) * self.views, np.flatnonzero(drawn) * self.views
        rows = (photos[:, None] + np.arange(self.views)).ravel()
        weights = self.weights
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            weights=None if weights is None else weights[rows],
            groups=None,
            validation=(
                self.features[held_out],
                self.labels[held_out],
                None if weights is None else weights[held_out],
            ),
            _feeds={},
        )

    def feeds(self, pooling: str, pca: int | None) -> _Feeds:
        """Return what heads train and are measured on."""
        if (pooling, pca) not in self._feeds:
            make = self._streamed if is_feature_source(self.features) else self._in_memory
            self._feeds[pooling, pca] = make(pooling, pca)
        return self._feeds[pooling, pca]

    def _in_memory(self, pooling: str, pca: int | None) -> _Feeds:
        vectors = vectors_of(self.features, pooling)
        projection = None if pca is None else _principal_components(vectors, pca)
        rows = Rows.of(_projected(vectors, projection), self.labels, self.folds, self.weights)
        feed = InMemory(rows, self.views)
        return _Feeds(feed, self._validation_feed(pooling, projection), projection)

    def _streamed(self, pooling: str, pca: int | None) -> _Feeds:
        if pca is not None:
            raise TrainingError("pca needs the features in memory; load the split, or leave pca out")
        feed = Streamed(self.features, self.labels, pooling, self.max_memory, self.weights)
        return _Feeds(feed, self._validation_feed(pooling, None))

    def _validation_feed(self, pooling: str, projection: _Projection | None) -> Feed | None:
        if self.validation is None:
            return None
        features, labels, weights = self.validation
        if is_feature_source(features):
            return Streamed(features, labels, pooling, self.max_memory, weights)
        vectors = _projected(vectors_of(features, pooling), projection)
        return InMemory(Rows.of(vectors, labels, weights=weights))


def _checked_views(views: int, y: NDArray[Any]) -> int:
    """Return `views` if the rows can be photos in so many views.

    Raises
    ------
    ValueError
        They cannot.
    """
    if views < 1 or len(y) % views:
        raise ValueError(
            f"views = {views}, but X has {len(y)} rows; it must have `views` rows for each photo"
        )
    if (y.reshape(-1, views) != y[::views, None]).any():
        raise ValueError(
            f"views = {views}, but y differs among the views of a photo; they must stand together"
        )
    return views


_FACTS = ("features_shape_", "n_features_in_", "feature_names_in_")


def _checked_validation(head: StackableHead, validation_data: Any, classes: NDArray[Any]) -> _Validation:
    is_source = is_feature_source(validation_data)
    X, y, *rest = (validation_data, None) if is_source else validation_data
    X = head._check(X)
    y = np.asarray(X.labels if y is None else y)
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(f"validation_data has labels that y has not: {unknown.tolist()[:5]}")
    if y.shape != (len(X),):
        raise ValueError(f"validation_data has {len(X)} rows of features and labels of shape {y.shape}")
    weights = checked_weights(rest[0] if rest else weights_of(X), len(y))
    return X, np.searchsorted(classes, y).astype(np.int32), weights


def _principal_components(vectors: NDArray[Any], count: int) -> _Projection:
    """Find the principal components of vectors (n, d).

    Raises
    ------
    TrainingError
        There are fewer than `count`.
    """
    from sklearn.decomposition import PCA

    most = min(vectors.shape)
    if count > most:
        rows, width = vectors.shape
        raise TrainingError(
            f"pca = {count}, but {rows} rows of {width} numbers have {most} components; take at most {most}"
        )
    found = PCA(count, random_state=0).fit(vectors.astype(np.float32, copy=False))
    return _Projection(found.mean_.astype(np.float32), found.components_.astype(np.float32))


def _projected(vectors: NDArray[Any], projection: _Projection | None) -> NDArray[Any]:
    return vectors if projection is None else projection(vectors)
