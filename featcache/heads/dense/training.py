"""Trains a stack of dense heads: same layers, same batches, settings of their own.

A head's numbers follow from the seed and from its own settings, never from the other heads of the stack.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import TrainingError
from featcache.heads.dense.feed import NO_FOLD, Feed, Rows
from featcache.heads.dense.program import Program, compiled
from featcache.runtime import tensorflow

BLOCK_BYTES = 12 << 20
"""Weights and optimizer slots of the heads that are trained side by side: they should stay in the cache."""

Weights = list[NDArray[np.float32]]
"""Kernel and bias of every layer in turn: (d, u1), (u1,), (u1, u2), (u2,), …"""

Measures = Mapping[str, float]
Prune = Callable[[int, Mapping[int, Measures]], Collection[int]]
"""Is told, after an epoch, its number and the measures of the heads still in training; says which to stop."""


@dataclass(frozen=True)
class TrainingParams:
    """How to train one head.

    The first group of settings is shared by a stack. `patience` is None for training to the end and keeping
    the last weights. `class_weights` are by class, None for 1. With `held_out` the head does not train
    on the rows of that fold and is measured on them.
    """

    activation: str = "relu"
    binary: bool = False
    optimizer: str = "adam"
    momentum: float = 0.0
    epochs: int = 20
    batch_size: int = 32

    learning_rate: float = 1e-3
    dropout: float = 0.0
    l2: float = 0.0
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    patience: int | None = None
    held_out: int = NO_FOLD


@dataclass
class Trained:
    """What training gave: weights, measures before it and per epoch, and the best epoch counted from 1."""

    weights: Weights = field(default_factory=list)
    before: dict[str, float] | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0


def glorot_uniform(rng: np.random.Generator, sizes: Sequence[int]) -> Weights:
    """Draw first weights: kernels uniform in ±sqrt(6 / (fan in + fan out)), biases zero, as Keras's Dense.

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    AISTATS 2010, equation 16. The output layer is drawn like the others.
    """
    weights: Weights = []
    for fan_in, fan_out in pairwise(sizes):
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        weights.append(rng.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32))
        weights.append(np.zeros(fan_out, np.float32))
    return weights


def train(
    start: Weights,
    feed: Feed,
    validation: Feed | None,
    params: Sequence[TrainingParams],
    rng: np.random.Generator,
    prune: Prune | None = None,
    has_weights: bool = False,
) -> list[Trained | TrainingError]:
    """Train heads from the weights `start`; the last batch of an epoch holds what is left over.

    Parameters
    ----------
    start : list of float32 arrays
        Kernel and bias of every layer, the same for all heads; they are not changed.
    feed, validation : Feed
        Validation rows are measured after every epoch; with a `patience` they end a head's training.
        Heads that hold a fold out are measured on that.
    params : sequence of TrainingParams
        One per head; the settings that a stack shares are equal.
    rng : numpy.random.Generator
        Gives the seeds of dropout, then in every epoch the photos' views and the order of the rows.
    prune : callable, optional
        Stops heads early; they keep what they have.
    has_weights : bool, default False
        Whether the rows' weights count.

    Returns
    -------
    list of Trained or TrainingError
        For every head what training gave, or why it failed: the loss or a weight was no longer finite.
        The weights are the last epoch's, or with a `patience` those of the epoch of least ``val_loss``.
        ``loss`` counts class weights, label smoothing and the L2 penalty and is taken while the weights
        move, as Keras's is; ``val_loss`` counts no class weights. Sample weights multiply the losses of
        ``loss``, which is their mean over the rows; ``val_loss`` and ``val_accuracy`` are weighted means.
        What is measured before the first epoch is measured on the same rows as ``val_loss``, and None without
        them.
    """
    tf = tensorflow()
    program = program_of(params, len(start) // 2, feed.dtype, has_weights)
    held_out = feed if program.has_folds else validation
    seeds = tf.constant(rng.integers(0, 2**31, size=program.layers, dtype=np.int32))
    stack = _Stack(tf, program, params, start)
    watch = _Watch(params, "val_loss" if held_out else "loss")
    to_train = _Tensors(tf)
    # with several views it is other rows that are measured: the plain photos
    to_measure = to_train if held_out is feed and feed.views == 1 else _Tensors(tf)
    if held_out:
        watch.note_before(stack.measure(held_out, to_measure, _Sums()).means())
    step = 0
    for epoch in range(1, params[0].epochs + 1):
        measured = _Sums()
        for rows, order in feed.shuffled(rng, params[0].batch_size):
            for block in stack.blocks:
                measured.add("", block, block.run_epoch(to_train(rows), order, step, seeds))
            step += -(-len(order) // params[0].batch_size)
        if held_out:
            stack.measure(held_out, to_measure, measured, "val_")
        by_head = measured.means()
        watch.note(epoch, by_head, stack)
        if prune is not None and watch.training:
            watch.stop(prune(epoch, {head: by_head[head] for head in watch.training}), stack)
        if not watch.training:
            break
        stack.keep(watch.training)
    watch.stop(list(watch.training), stack)
    return watch.results


def program_of(
    params: Sequence[TrainingParams], layers: int, dtype: np.dtype[Any], has_weights: bool = False
) -> Program:
    """Return the program that carries out `params` with so many layers."""
    first = params[0]
    return Program(
        layers=layers,
        activation=first.activation,
        binary=first.binary,
        optimizer=first.optimizer,
        has_momentum=first.momentum > 0,
        has_dropout=any(one.dropout > 0 for one in params),
        has_l2=any(one.l2 > 0 for one in params),
        has_class_weights=any(one.class_weights is not None for one in params),
        has_folds=first.held_out != NO_FOLD,
        has_weights=has_weights,
        features=dtype.name,
    )


def tensorflow_loaded() -> None:
    """Import TensorFlow now, for whoever wants to time training without it."""
    tensorflow()


# ---- heads side by side ----------------------------------------------------------------------------------

_HeadState = list[list[NDArray[np.float32]]]
"""For every tensor of weights its value, divided by the learning rate, and its optimizer slots."""


class _Stack:
    """The heads in blocks small enough for the processor's cache."""

    def __init__(self, tf: Any, program: Program, params: Sequence[TrainingParams], start: Weights) -> None:
        self._tf, self._program, self._params = tf, program, params
        self._size = max(1, BLOCK_BYTES // (4 * (1 + program.slots) * sum(w.size for w in start)))
        heads = list(range(len(params)))
        if program.drops_features:  # neighbours of the same rate share their dropped features
            heads.sort(key=lambda head: params[head].dropout)
        self.blocks = [
            _Block(tf, program, params, {head: self._first_state(start, head) for head in part})
            for part in _parts(heads, self._size)
        ]

    def _first_state(self, start: Weights, head: int) -> _HeadState:
        rate = np.float32(self._params[head].learning_rate)
        return [[w / rate, *(np.zeros_like(w) for _ in range(self._program.slots))] for w in start]

    def measure(self, feed: Feed, tensors: _Tensors, sums: _Sums, prefix: str = "") -> _Sums:
        """Measure all heads on a feed's rows, add that to `sums` and return these."""
        for rows in feed.in_order():
            for block in self.blocks:
                sums.add(prefix, block, block.evaluate(tensors(rows)))
        return sums

    def weights(self, heads: Collection[int]) -> dict[int, Weights]:
        """Return the weights of some heads."""
        found: dict[int, Weights] = {}
        for block in self.blocks:
            wanted = [head for head in block.heads if head in heads]
            for head, state in block.states(wanted, values_only=True).items():
                rate = np.float32(self._params[head].learning_rate)
                found[head] = [tensor[0] * rate for tensor in state]
        return found

    def keep(self, heads: Collection[int]) -> None:
        """Go on with these heads alone, packed anew when half of the places are empty."""
        alive = sum(head in heads for block in self.blocks for head in block.heads)
        places = sum(len(block.heads) for block in self.blocks)
        if 2 * alive > places:
            return
        states: dict[int, _HeadState] = {}
        for block in self.blocks:
            states |= block.states([head for head in block.heads if head in heads])
        self.blocks = [
            _Block(self._tf, self._program, self._params, {head: states[head] for head in part})
            for part in _parts(list(states), self._size)
        ]


def _parts(heads: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut `heads` into as few parts of at most `size` as possible, of about the same length."""
    count = -(-len(heads) // size)
    bounds = [len(heads) * number // count for number in range(count + 1)]
    return [heads[start:stop] for start, stop in pairwise(bounds)]


class _Block:
    """Some heads as one set of tensors, see `featcache.heads.dense.program`.

    Attributes
    ----------
    heads : list of int
        Their numbers in the stack.
    """

    def __init__(
        self, tf: Any, program: Program, params: Sequence[TrainingParams], states: Mapping[int, _HeadState]
    ) -> None:
        self.heads = list(states)
        groups = _groups(self.heads, params) if program.drops_features else [self.heads]
        self._order = [head for group in groups for head in group]
        self._drops_features = program.drops_features
        self._run_epoch, self._evaluate = compiled(program)

        def variable(tensor: int, part: int) -> Any:
            return tf.Variable(self._packed(tensor, [[states[h][tensor][part] for h in g] for g in groups]))

        parts = range(1 + program.slots)
        self._variables = [[variable(tensor, part) for part in parts] for tensor in range(2 * program.layers)]
        self._weights = [value.handle for value, *_ in self._variables]
        self._slots = [[slot.handle for slot in slots] for _, *slots in self._variables]
        self._numbers = _numbers(tf, [params[head] for head in self._order])
        self._batch_size = tf.constant(params[0].batch_size)
        self._constant = tf.constant

    def run_epoch(
        self, data: Any, order: NDArray[np.int32], step: int, seeds: Any
    ) -> dict[int, NDArray[np.float32]]:
        """Train on `data` in `order`; return per head the sums of loss, hits and rows."""
        counts = (self._constant(order), self._batch_size, self._constant(step))
        sums = self._run_epoch(data, *counts, seeds, self._numbers, self._weights, self._slots)
        return self._by_head(sums)

    def evaluate(self, data: Any) -> dict[int, NDArray[np.float32]]:
        """Measure on `data`; return per head the sums of loss, hits and rows."""
        return self._by_head(self._evaluate(data, self._numbers, self._weights))

    def _by_head(self, sums: Sequence[Any]) -> dict[int, NDArray[np.float32]]:
        table = np.stack([one.numpy() for one in sums], axis=1)
        return {head: table[self._order.index(head)] for head in self.heads}

    def states(self, heads: Collection[int], values_only: bool = False) -> dict[int, _HeadState]:
        """Return copies of some heads' tensors: values and, if asked for, optimizer slots."""
        if not heads:
            return {}
        count = 1 if values_only else None
        tensors = [[part.numpy() for part in tensor[:count]] for tensor in self._variables]
        return {
            head: [[self._unpacked(i, part, head) for part in parts] for i, parts in enumerate(tensors)]
            for head in heads
        }

    def _packed(self, tensor: int, groups: Sequence[Sequence[NDArray[np.float32]]]) -> NDArray[np.float32]:
        if tensor > 0:
            return np.stack([one for group in groups for one in group])
        beside = [np.concatenate(group, axis=1) for group in groups]
        together: NDArray[np.float32] = np.stack(beside) if self._drops_features else beside[0]
        return together

    def _unpacked(self, tensor: int, packed: NDArray[np.float32], head: int) -> NDArray[np.float32]:
        place = self._order.index(head)
        if tensor > 0:
            return np.array(packed[place])
        if not self._drops_features:
            packed = packed[None]
        group, member = divmod(place, len(self._order) // len(packed))
        width = packed.shape[2] * len(packed) // len(self._order)
        return np.array(packed[group, :, member * width : (member + 1) * width])


def _groups(heads: Sequence[int], params: Sequence[TrainingParams]) -> list[list[int]]:
    """Put heads of the same dropout into groups of one size; a group too small repeats its last head.

    A group costs a copy of the features with some dropped, a place in it about the same: the product.
    """
    by_rate: dict[float, list[int]] = defaultdict(list)
    for head in heads:
        by_rate[params[head].dropout].append(head)
    largest = max(map(len, by_rate.values()))

    def cost(size: int) -> int:
        return sum(-(-len(same) // size) for same in by_rate.values()) * (1 + size)

    size = min(range(1, largest + 1), key=cost)
    groups = [same[start : start + size] for same in by_rate.values() for start in range(0, len(same), size)]
    return [group + group[-1:] * (size - len(group)) for group in groups]


def _numbers(tf: Any, params: Sequence[TrainingParams]) -> dict[str, Any]:
    own = ("learning_rate", "dropout", "l2", "label_smoothing")
    numbers = {name: tf.constant([getattr(one, name) for one in params], tf.float32) for name in own}
    classes = max(len(one.class_weights or ()) for one in params)
    weights = [one.class_weights or (1.0,) * classes for one in params]
    return numbers | {
        "momentum": tf.constant(params[0].momentum, tf.float32),
        "class_weights": tf.reshape(tf.constant(weights, tf.float32), [len(params), classes]),
        "held_out": tf.constant([one.held_out for one in params], tf.int32),
    }


class _Tensors:
    """Makes rows TensorFlow's; rows that come again, as those in memory do, are not copied again."""

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        self._rows: Rows | None = None
        self._tensors: tuple[Any, ...] = ()

    def __call__(self, rows: Rows) -> tuple[Any, ...]:
        if rows is not self._rows:
            self._rows, self._tensors = rows, ()  # the old ones go before the new ones come
            self._tensors = tuple(self._tf.constant(column) for column in rows)
        return self._tensors


# ---- what is kept of an epoch ----------------------------------------------------------------------------


class _Sums:
    """Adds up what the pieces of an epoch gave."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, NDArray[np.float64]]] = defaultdict(dict)

    def add(self, prefix: str, block: _Block, sums: Mapping[int, NDArray[np.float32]]) -> None:
        """Add one piece's sums of loss, hits and rows."""
        for head, values in sums.items():
            self._sums[prefix][head] = self._sums[prefix].get(head, 0.0) + values.astype(np.float64)

    def means(self) -> dict[int, dict[str, float]]:
        """Return loss and accuracy by head."""
        by_head: dict[int, dict[str, float]] = defaultdict(dict)
        for prefix, sums in self._sums.items():
            for head, (loss, hits, rows) in sums.items():
                by_head[head][f"{prefix}loss"] = float(loss / max(rows, 1.0))
                by_head[head][f"{prefix}accuracy"] = float(hits / max(rows, 1.0))
        return by_head


class _Watch:
    """Keeps, per head, the history, the best epoch and, with a patience, that epoch's weights.

    Attributes
    ----------
    training : dict
        The heads still in training, by number.
    results : list of Trained or TrainingError
    """

    def __init__(self, params: Sequence[TrainingParams], key: str) -> None:
        self._params, self._key = params, key
        self._lowest = [np.inf] * len(params)
        self.training = {head: Trained() for head in range(len(params))}
        self.results: list[Trained | TrainingError] = list(self.training.values())

    def note_before(self, measured: Mapping[int, Measures]) -> None:
        """Take down what the first weights give."""
        for head, trained in self.training.items():
            trained.before = dict(measured[head])

    def note(self, epoch: int, measured: Mapping[int, Measures], stack: _Stack) -> None:
        """Take one epoch's measures down; end the heads that diverged or whose patience has run out."""
        for head, trained in self.training.items():
            for key, value in measured[head].items():
                trained.history.setdefault(key, []).append(value)
        self._note_best(epoch, measured, stack)
        for head in list(self.training):
            if not all(np.isfinite(list(measured[head].values()))):
                self._fail(head)
        self.stop([head for head in self.training if self._has_waited(head, epoch)], stack)

    def _note_best(self, epoch: int, measured: Mapping[int, Measures], stack: _Stack) -> None:
        better = [h for h in self.training if measured[h][self._key] < self._lowest[h]]
        for head in better:
            self._lowest[head], self.training[head].best_epoch = measured[head][self._key], epoch
        for head, weights in stack.weights([h for h in better if self._patience(h) is not None]).items():
            self.training[head].weights = weights

    def _patience(self, head: int) -> int | None:
        return self._params[head].patience

    def _has_waited(self, head: int, epoch: int) -> bool:
        patience = self._patience(head)
        return patience is not None and epoch - self.training[head].best_epoch >= patience

    def stop(self, heads: Collection[int], stack: _Stack) -> None:
        """End the training of some heads; without a patience they keep the weights of now."""
        unread = [head for head in heads if self._patience(head) is None]
        for head, weights in stack.weights(unread).items():
            self.training[head].weights = weights
        for head in heads:
            # the last step moves the weights after its loss
            if all(np.isfinite(weight).all() for weight in self.training[head].weights):
                del self.training[head]
            else:
                self._fail(head)

    def _fail(self, head: int) -> None:
        one, epoch = self._params[head], len(self.training.pop(head).history["loss"])
        self.results[head] = TrainingError(
            f"training diverged in epoch {epoch} of {one.epochs}: the loss or a weight is no longer finite. "
            f"The learning_rate is {one.learning_rate:g} ({one.optimizer}); "
            "take a smaller one, or scale the features"
        )
