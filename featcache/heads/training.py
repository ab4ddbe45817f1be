"""The training loop of the dense heads: whole epochs in one compiled TensorFlow function.

What a compiled loop depends on is a small `Program`; everything else (sizes, data, learning rate, seeds)
reaches it as tensors of unknown shape, so that a sweep of a hundred heads is traced only once. It keeps no
state: weights and optimizer slots are resources of the caller, handed over by their handles.

Every tensor of weights has its layer's axes last and the loop never looks at the axes before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import TrainingError
from featcache.tensorflow_runtime import tensorflow

# Keras's defaults (keras.optimizers.Adam, RMSprop).
BETA_1, BETA_2, RHO, EPSILON = 0.9, 0.999, 0.9, 1e-7

_NUMBERS = ("learning_rate", "momentum", "dropout", "l2", "label_smoothing")
"""What of a plan reaches the compiled loop as scalars."""

Weights = list[NDArray[np.float32]]
"""Kernel and bias of every layer in turn: (d, u1), (u1,), (u1, u2), (u2,), …"""


class Rows(NamedTuple):
    """Labelled features: (n, d) float32, (n,) int32 positions of the class, (n,) float32 weights."""

    features: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """How to train. `patience` is None for training to the end and keeping the last weights."""

    activation: str = "relu"
    binary: bool = False
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    dropout: float = 0.0
    l2: float = 0.0
    label_smoothing: float = 0.0
    epochs: int = 20
    batch_size: int = 32
    patience: int | None = None


@dataclass(frozen=True)
class Program:
    """What a compiled loop depends on."""

    layers: int
    activation: str
    binary: bool
    optimizer: str
    has_momentum: bool
    has_dropout: bool
    has_l2: bool

    @classmethod
    def of(cls, plan: Plan, layers: int) -> Program:
        """Return the program that carries out `plan` with so many layers."""
        return cls(
            layers=layers,
            activation=plan.activation,
            binary=plan.binary,
            optimizer=plan.optimizer,
            has_momentum=plan.momentum > 0,
            has_dropout=plan.dropout > 0,
            has_l2=plan.l2 > 0,
        )

    @property
    def slots(self) -> int:
        """How many optimizer tensors there are for each tensor of weights."""
        return {"adam": 2, "rmsprop": 2, "sgd": int(self.has_momentum)}[self.optimizer]


@dataclass
class Trained:
    """What training gave: weights, measures per epoch, and the best epoch counted from 1."""

    weights: Weights = field(default_factory=list)
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
    start: Weights, rows: Rows, validation: Rows | None, plan: Plan, rng: np.random.Generator
) -> Trained:
    """Train from the weights `start`; the last batch of an epoch holds what is left over.

    Parameters
    ----------
    start : list of float32 arrays
        Kernel and bias of every layer; they are not changed.
    rows, validation : Rows
        Validation rows are measured after every epoch; with a `patience` they end the training.
    plan : Plan
    rng : numpy.random.Generator
        Gives the seeds of dropout, then one order of the rows per epoch.

    Returns
    -------
    Trained
        With the last epoch's weights, or with a `patience` those of the epoch of least ``val_loss``.
        ``loss`` counts class weights, label smoothing and the L2 penalty and is taken while the weights
        move, as Keras's is; ``val_loss`` counts no class weights.

    Raises
    ------
    TrainingError
        The loss or a weight is no longer finite.
    """
    tf = tensorflow()
    program = Program.of(plan, layers=len(start) // 2)
    run_epoch, evaluate = compiled(program)
    state = _State(tf, start, program.slots)
    data, held_out = _tensors(tf, rows), _tensors(tf, validation) if validation else None
    numbers = _numbers(tf, plan)
    seeds = tf.constant(rng.integers(0, 2**31, size=program.layers, dtype=np.int32))
    batch, steps = tf.constant(plan.batch_size), -(-len(rows.labels) // plan.batch_size)
    watch = _Watch("val_loss" if validation else "loss", plan.patience)
    for epoch in range(plan.epochs):
        order = tf.constant(rng.permutation(len(rows.labels)).astype(np.int32))
        first = tf.constant(epoch * steps)
        measured = run_epoch(data, order, batch, first, seeds, numbers, state.weights, state.slots)
        held = evaluate(held_out, numbers, state.weights) if held_out else {}
        watch.note(_floats({**measured, **{f"val_{key}": value for key, value in held.items()}}), plan, state)
        if watch.over:
            break
    return watch.finish(plan, state)


class _State:
    """The weights and optimizer slots in TensorFlow; `weights` and `slots` are their handles."""

    def __init__(self, tf: Any, start: Weights, slots: int) -> None:
        self._variables = [tf.Variable(weight) for weight in start]
        self._slots = [[tf.Variable(tf.zeros_like(w)) for _ in range(slots)] for w in self._variables]
        self.weights = [variable.handle for variable in self._variables]
        self.slots = [[slot.handle for slot in slots] for slots in self._slots]

    def read(self) -> Weights:
        return [np.array(variable.numpy()) for variable in self._variables]


class _Watch:
    """Keeps the history, the best epoch and, with a patience, that epoch's weights."""

    def __init__(self, key: str, patience: int | None) -> None:
        self._key, self._patience = key, patience
        self._lowest = np.inf
        self._trained = Trained()

    def note(self, measured: dict[str, float], plan: Plan, state: _State) -> None:
        """Take one epoch's measures down."""
        history = self._trained.history
        for key, value in measured.items():
            history.setdefault(key, []).append(value)
        if not all(np.isfinite(list(measured.values()))):
            raise _diverged(len(history["loss"]), plan)
        if measured[self._key] < self._lowest:
            self._lowest = measured[self._key]
            self._trained.best_epoch = len(history["loss"])
            if self._patience is not None:
                self._trained.weights = state.read()

    @property
    def over(self) -> bool:
        """Whether the patience has run out."""
        waited = len(self._trained.history["loss"]) - self._trained.best_epoch
        return self._patience is not None and waited >= self._patience

    def finish(self, plan: Plan, state: _State) -> Trained:
        """Return the result, after a look at the weights: the last step moves them after its loss."""
        if self._patience is None:
            self._trained.weights = state.read()
        if not all(np.isfinite(weight).all() for weight in self._trained.weights):
            raise _diverged(len(self._trained.history["loss"]), plan)
        return self._trained


def _diverged(epoch: int, plan: Plan) -> TrainingError:
    return TrainingError(
        f"training diverged in epoch {epoch} of {plan.epochs}: the loss or a weight is no longer finite. "
        f"The learning_rate is {plan.learning_rate:g} ({plan.optimizer}); "
        "take a smaller one, or scale the features"
    )


def _tensors(tf: Any, rows: Rows) -> tuple[Any, Any, Any]:
    return tf.constant(rows.features), tf.constant(rows.labels), tf.constant(rows.weights)


def _numbers(tf: Any, plan: Plan) -> dict[str, Any]:
    return {name: tf.constant(getattr(plan, name), tf.float32) for name in _NUMBERS}


def _floats(measured: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in measured.items()}


def tensorflow_loaded() -> None:
    """Import TensorFlow now, for whoever wants to time training without it."""
    tensorflow()


@lru_cache(maxsize=64)
def compiled(program: Program) -> tuple[Any, Any]:
    """Return the functions which run an epoch and which measure, traced once for all sizes."""
    tf = tensorflow()
    scalar, whole = tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.int32)
    data = (
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.float32),
    )
    numbers = dict.fromkeys(_NUMBERS, scalar)
    ints = tf.TensorSpec([None], tf.int32)
    handle = tf.TensorSpec([], tf.resource)
    weights = [handle] * (2 * program.layers)
    slots = [[handle] * program.slots] * (2 * program.layers)
    signature = [data, ints, whole, whole, ints, numbers, weights, slots]
    run_epoch = tf.function(_epoch(tf, program), input_signature=signature, autograph=False)
    evaluate = tf.function(_evaluate(tf, program), input_signature=[data, numbers, weights], autograph=False)
    return run_epoch, evaluate


def _epoch(tf: Any, program: Program) -> Callable[..., dict[str, Any]]:
    update = _UPDATES[program.optimizer]

    def batch_step(
        rows: Any, step: Any, seeds: Any, numbers: Any, handles: Any, slots: Any
    ) -> tuple[Any, Any]:
        features, labels, sample_weights = rows
        values = _read(tf, handles)
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits = _forward(tf, program, values, features, numbers, seeds, step)
            loss = _loss(tf, program, values, logits, labels, sample_weights, numbers)
        for handle, slot, gradient in zip(handles, slots, tape.gradient(loss, values), strict=True):
            update(tf, handle, slot, gradient, step, numbers)
        size = tf.cast(tf.size(labels), tf.float32)
        return loss * size, _hits(tf, program, logits, labels)

    def epoch(
        data: Any, order: Any, batch: Any, first: Any, seeds: Any, numbers: Any, handles: Any, slots: Any
    ) -> dict[str, Any]:
        steps = (tf.size(order) + batch - 1) // batch

        def body(step: Any, loss: Any, hits: Any) -> tuple[Any, Any, Any]:
            chosen = order[step * batch : (step + 1) * batch]
            rows = [tf.gather(column, chosen) for column in data]
            batch_loss, batch_hits = batch_step(rows, first + step, seeds, numbers, handles, slots)
            return step + 1, loss + batch_loss, hits + batch_hits

        begin = (tf.constant(0), tf.constant(0.0), tf.constant(0.0))
        _, loss, hits = tf.while_loop(lambda step, *_: step < steps, body, begin)
        rows = tf.cast(tf.size(order), tf.float32)
        return {"loss": loss / rows, "accuracy": hits / rows}

    return epoch


def _evaluate(tf: Any, program: Program) -> Callable[..., dict[str, Any]]:
    def evaluate(data: Any, numbers: Any, handles: Any) -> dict[str, Any]:
        features, labels, sample_weights = data
        values = _read(tf, handles)
        logits = _forward(tf, program, values, features)
        loss = _loss(tf, program, values, logits, labels, sample_weights, numbers)
        return {
            "loss": loss,
            "accuracy": _hits(tf, program, logits, labels) / tf.cast(tf.size(labels), tf.float32),
        }

    return evaluate


def _read(tf: Any, handles: Any) -> list[Any]:
    """Read the weights; a handle has no shape, so say here that kernels and biases take turns."""
    ranks = [[None, None], [None]] * (len(handles) // 2)
    return [
        tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32), rank)
        for handle, rank in zip(handles, ranks, strict=True)
    ]


def _forward(
    tf: Any,
    program: Program,
    values: Any,
    features: Any,
    numbers: Any = None,
    seeds: Any = None,
    step: Any = None,
) -> Any:
    """Return logits; with `seeds` for training, that is with dropout."""
    activate = activations(tf)[program.activation]
    signal = features
    for layer in range(program.layers):
        if program.has_dropout and seeds is not None and has_dropout_before(layer, program.layers):
            signal = _drop(tf, signal, numbers["dropout"], tf.stack([seeds[layer], step]))
        signal = tf.matmul(signal, values[2 * layer]) + values[2 * layer + 1]
        if layer < program.layers - 1:
            signal = activate(signal)
    return signal


def has_dropout_before(layer: int, layers: int) -> bool:
    """Say where dropout acts: on what every hidden layer gives; on the features when there is none."""
    return layer > 0 or layers == 1


def activations(tf: Any) -> dict[str, Any]:
    """Return TensorFlow's activations under Keras's names."""
    names = ("relu", "elu", "gelu", "silu", "sigmoid", "tanh")
    return {name: getattr(tf.nn, name) for name in names}


def _drop(tf: Any, signal: Any, rate: Any, seed: Any) -> Any:
    kept = tf.random.stateless_uniform(tf.shape(signal), seed, alg="philox") >= rate
    return tf.where(kept, signal / (1.0 - rate), 0.0)


def _loss(
    tf: Any, program: Program, values: Any, logits: Any, labels: Any, sample_weights: Any, numbers: Any
) -> Any:
    """Cross-entropy on logits, averaged over the rows as Keras does (not over the sum of their weights)."""
    each = _cross_entropy(tf, program, logits, labels, numbers["label_smoothing"])
    loss = tf.reduce_mean(each * sample_weights)
    if not program.has_l2:
        return loss
    return loss + numbers["l2"] * tf.add_n([tf.reduce_sum(kernel * kernel) for kernel in values[::2]])


def _cross_entropy(tf: Any, program: Program, logits: Any, labels: Any, smoothing: Any) -> Any:
    if program.binary:
        targets = tf.cast(labels, tf.float32) * (1.0 - smoothing) + smoothing / 2.0
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits[:, 0])
    classes = tf.shape(logits)[-1]
    targets = tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / tf.cast(classes, tf.float32)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def _hits(tf: Any, program: Program, logits: Any, labels: Any) -> Any:
    if program.binary:
        said = tf.cast(logits[:, 0] > 0.0, tf.int32)
    else:
        said = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.reduce_sum(tf.cast(said == labels, tf.float32))


def _adam(tf: Any, handle: Any, slots: Any, gradient: Any, step: Any, numbers: Any) -> None:
    """Kingma and Ba, arXiv 1412.6980, in the form before section 2.1: epsilon is not bias-corrected."""
    time = tf.cast(step + 1, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=handle,
        m=slots[0],
        v=slots[1],
        beta1_power=tf.pow(BETA_1, time),
        beta2_power=tf.pow(BETA_2, time),
        lr=numbers["learning_rate"],
        beta1=BETA_1,
        beta2=BETA_2,
        epsilon=EPSILON,
        grad=gradient,
    )


def _rmsprop(tf: Any, handle: Any, slots: Any, gradient: Any, step: Any, numbers: Any) -> None:
    """The kernel divides by sqrt(mean square + epsilon): epsilon inside of the root, as Keras 3 has it."""
    tf.raw_ops.ResourceApplyRMSProp(
        var=handle,
        ms=slots[0],
        mom=slots[1],
        lr=numbers["learning_rate"],
        rho=RHO,
        momentum=numbers["momentum"],
        epsilon=EPSILON,
        grad=gradient,
    )


def _sgd(tf: Any, handle: Any, slots: Any, gradient: Any, step: Any, numbers: Any) -> None:
    rate = numbers["learning_rate"]
    if not slots:
        tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=rate, delta=gradient)
        return
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=handle, accum=slots[0], lr=rate, grad=gradient, momentum=numbers["momentum"]
    )


_UPDATES: dict[str, Callable[..., None]] = {"adam": _adam, "rmsprop": _rmsprop, "sgd": _sgd}
