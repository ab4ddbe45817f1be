"""The compiled part of the dense heads' training: whole epochs of many heads in one TensorFlow function.

K heads of the same layers see the same batches. The axes of the tensors are

    features  (B, d) of a batch; dropout on features gives (G, B, d), a copy for each of G rates
    kernels   of the first layer (d, K * u), all heads' side by side, so that one product serves them all;
              with dropout on features (G, d, M * u), the M heads of a rate side by side, K = G * M
              of later layers (K, u, v), as all biases, (K, u), have it
    signals   (K, B, u)

What is stored of a weight w is w / r, r being its head's learning rate, and an update is the optimizer's at a
rate of 1. This is the same arithmetic as w at the rate r, and lets TensorFlow's fused kernels, which take
one rate for a whole tensor, train heads of different rates. The factor r is put on products, not on weights.

What a compiled loop depends on is a small `Program`; everything else (sizes, data, rates, seeds) reaches
it as tensors of unknown shape, so that a sweep of hundreds of heads is traced once. It keeps no state:
weights and optimizer slots are resources of the caller, handed over by their handles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from featcache.runtime import tensorflow

# Keras's defaults (keras.optimizers.Adam, RMSprop).
BETA_1, BETA_2, RHO, EPSILON = 0.9, 0.999, 0.9, 1e-7

# Rows that are measured at once: bounds what evaluation needs beside the features.
_EVALUATED_ROWS = 2048


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
    has_class_weights: bool
    has_folds: bool
    has_weights: bool
    features: str
    """Type of the features in memory: "float32" or "float16"."""

    @property
    def slots(self) -> int:
        """How many optimizer tensors there are for each tensor of weights."""
        return {"adam": 2, "rmsprop": 2, "sgd": int(self.has_momentum)}[self.optimizer]

    @property
    def drops_features(self) -> bool:
        """Whether dropout acts on the features, so that heads of different rates see different ones."""
        return self.has_dropout and has_dropout_before(0, self.layers)


def has_dropout_before(layer: int, layers: int) -> bool:
    """Say where dropout acts: on what every hidden layer gives; on the features when there is none."""
    return layer > 0 or layers == 1


def activations(tf: Any) -> dict[str, Any]:
    """Return TensorFlow's activations under Keras's names."""
    names = ("relu", "elu", "gelu", "silu", "sigmoid", "tanh")
    return {name: getattr(tf.nn, name) for name in names}


@lru_cache(maxsize=64)
def compiled(program: Program) -> tuple[Any, Any]:
    """Return the functions which run an epoch and which measure, traced once for all sizes.

    Both return, per head, the sum of the loss over its rows, the right answers and the rows, (K,) each.
    """
    tf = tensorflow()
    vector, count = tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int32)
    ints = tf.TensorSpec([None], tf.int32)
    data = (tf.TensorSpec([None, None], program.features), ints, ints, vector)
    numbers = dict.fromkeys(("learning_rate", "dropout", "l2", "label_smoothing"), vector) | {
        "momentum": tf.TensorSpec([], tf.float32),
        "class_weights": tf.TensorSpec([None, None], tf.float32),
        "held_out": ints,
    }
    handle = tf.TensorSpec([], tf.resource)
    weights = [handle] * (2 * program.layers)
    slots = [[handle] * program.slots] * (2 * program.layers)
    signature = [data, ints, count, count, ints, numbers, weights, slots]
    run_epoch = tf.function(_epoch(tf, program), input_signature=signature, autograph=False)
    evaluate = tf.function(_evaluate(tf, program), input_signature=[data, numbers, weights], autograph=False)
    return run_epoch, evaluate


def _epoch(tf: Any, program: Program) -> Callable[..., Any]:
    update = _UPDATES[program.optimizer]

    def train_on(batch: Any, step: Any, seeds: Any, numbers: Any, handles: Any, slots: Any) -> Sequence[Any]:
        features, labels, folds, weights = batch
        values = _read(tf, program, handles)
        trained_on = _trained_on(tf, program, folds, numbers)
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits = _forward(tf, program, values, features, numbers, seeds, step)
            losses = _cross_entropy(tf, program, logits, labels, numbers["label_smoothing"])
            if program.has_class_weights:
                losses *= tf.gather(numbers["class_weights"], labels, axis=1)
            if program.has_weights:
                losses *= weights
            loss, rows = _sums(tf, losses, trained_on)
            # averaged over a head's rows as Keras does, not over the sum of their weights
            mean = tf.reduce_sum(loss / tf.maximum(rows, 1.0))
        gradients = tape.gradient(mean, values)
        if program.has_l2:
            gradients, penalty = _penalized(tf, program, values, gradients, numbers)
            loss += penalty * rows
        for handle, slot, gradient in zip(handles, slots, gradients, strict=True):
            update(tf, handle, slot, gradient, step, numbers["momentum"])
        return loss, _sums(tf, _hits(tf, program, logits, labels), trained_on)[0], rows

    def epoch(
        data: Any, order: Any, size: Any, first: Any, seeds: Any, numbers: Any, handles: Any, slots: Any
    ) -> Any:
        steps = (tf.size(order) + size - 1) // size

        def body(step: Any, *sums: Any) -> Any:
            chosen = order[step * size : (step + 1) * size]
            batch = [tf.gather(column, chosen) for column in data]
            measured = train_on(batch, first + step, seeds, numbers, handles, slots)
            return step + 1, *(total + part for total, part in zip(sums, measured, strict=True))

        zeros = tf.zeros_like(numbers["learning_rate"])
        _, *sums = tf.while_loop(lambda step, *_: step < steps, body, (tf.constant(0), zeros, zeros, zeros))
        return sums

    return epoch


def _evaluate(tf: Any, program: Program) -> Callable[..., Any]:
    def evaluate(data: Any, numbers: Any, handles: Any) -> Any:
        values = _read(tf, program, handles)
        rows_in_all = tf.size(data[1])

        def body(start: Any, *sums: Any) -> Any:
            features, labels, folds, weights = (column[start : start + _EVALUATED_ROWS] for column in data)
            logits = _forward(tf, program, values, features, numbers)
            measured_on = _held_out(tf, program, folds, numbers)
            losses = _cross_entropy(tf, program, logits, labels, numbers["label_smoothing"])
            if program.has_weights:  # here a row counts as much as it weighs
                measured_on = weights * (tf.ones_like(losses) if measured_on is None else measured_on)
            loss, rows = _sums(tf, losses, measured_on)
            hits, _ = _sums(tf, _hits(tf, program, logits, labels), measured_on)
            parts = (loss, hits, rows)
            return start + _EVALUATED_ROWS, *(a + b for a, b in zip(sums, parts, strict=True))

        zeros = tf.zeros_like(numbers["learning_rate"])
        begin = (tf.constant(0), zeros, zeros, zeros)
        _, *sums = tf.while_loop(lambda start, *_: start < rows_in_all, body, begin)
        return sums

    return evaluate


def _read(tf: Any, program: Program, handles: Any) -> list[Any]:
    """Read the weights; a handle has no shape, so say here how many axes they have."""
    ranks = [3 if layer or program.drops_features else 2 for layer in range(program.layers)]
    shapes = [[None] * axes for rank in ranks for axes in (rank, 2)]
    return [
        tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32), shape)
        for handle, shape in zip(handles, shapes, strict=True)
    ]


# ---- forward ---------------------------------------------------------------------------------------------


def _forward(
    tf: Any,
    program: Program,
    values: Any,
    features: Any,
    numbers: Any,
    seeds: Any = None,
    step: Any = None,
) -> Any:
    """Return logits (K, B, outputs); with `seeds` for training, that is with dropout."""
    activate = activations(tf)[program.activation]
    rates = numbers["learning_rate"][:, None, None]
    drops = program.has_dropout and seeds is not None
    dropout = numbers["dropout"][:, None, None]
    features, scale = tf.cast(features, tf.float32), 1.0
    if program.drops_features:
        features = features[None]
        if drops:
            features *= _kept(tf, features, _of_groups(tf, values[0], dropout), seeds[0], step)
            scale = 1.0 / (1.0 - dropout)
    signal = _first_product(tf, features, values[0], values[1], rates, scale)
    for layer in range(1, program.layers):
        signal = activate(signal)
        if drops:
            signal *= _kept(tf, signal, dropout, seeds[layer], step) / (1.0 - dropout)
        signal = _product(tf, signal, values[2 * layer], values[2 * layer + 1], rates)
    return signal


def _of_groups(tf: Any, kernel: Any, dropout: Any) -> Any:
    """Return the dropout of each group of heads, (G, 1, 1)."""
    return tf.reshape(dropout, [tf.shape(kernel)[0], -1])[:, :1, None]


def _kept(tf: Any, signal: Any, dropout: Any, seed: Any, step: Any) -> Any:
    """Return 1 for what stays of `signal` and 0 for the rest, for each dropout (K or G, 1, 1).

    The same random numbers serve all, so no head depends on the others. Rounding down is several times
    faster here than comparing and casting.
    """
    drawn = tf.random.stateless_uniform(tf.shape(signal)[-2:], tf.stack([seed, step]), alg="philox")
    return tf.floor(drawn + (1.0 - dropout))


def _first_product(tf: Any, features: Any, kernel: Any, bias: Any, rates: Any, scale: Any) -> Any:
    """Return rate * (scale * features @ kernel + bias), (K, B, u); gradients as of the weights, see above."""

    def product(kernel: Any, bias: Any) -> Any:
        heads = tf.shape(bias)[0]
        signal = _by_head(tf, tf.matmul(features, kernel), heads) * scale + bias[:, None]

        def gradient(upstream: Any) -> Any:
            beside = _side_by_side(tf, upstream * scale, kernel)
            return _transposed_product(tf, features, beside), tf.reduce_sum(upstream, 1)

        return signal * rates, gradient

    return tf.custom_gradient(product)(kernel, bias)


def _transposed_product(tf: Any, features: Any, upstream: Any) -> Any:
    """Return features.T @ upstream; for groups by way of its transpose, which is the faster kernel."""
    if features.shape.rank == 2:
        return tf.matmul(features, upstream, transpose_a=True)
    return tf.transpose(tf.matmul(upstream, features, transpose_a=True), [0, 2, 1])


def _by_head(tf: Any, signal: Any, heads: Any) -> Any:
    """Turn (B, K * u) or (G, B, M * u) into (K, B, u)."""
    if signal.shape.rank == 2:
        return tf.transpose(tf.reshape(signal, [tf.shape(signal)[0], heads, -1]), [1, 0, 2])
    groups, rows = tf.shape(signal)[0], tf.shape(signal)[1]
    parted = tf.reshape(signal, [groups, rows, heads // groups, -1])
    return tf.reshape(tf.transpose(parted, [0, 2, 1, 3]), [heads, rows, -1])


def _side_by_side(tf: Any, signal: Any, kernel: Any) -> Any:
    """Turn (K, B, u) into (B, K * u), or (G, B, M * u), as `kernel` has it."""
    heads, rows = tf.shape(signal)[0], tf.shape(signal)[1]
    if kernel.shape.rank == 2:
        return tf.reshape(tf.transpose(signal, [1, 0, 2]), [rows, -1])
    groups = tf.shape(kernel)[0]
    parted = tf.reshape(signal, [groups, heads // groups, rows, tf.shape(signal)[2]])
    return tf.reshape(tf.transpose(parted, [0, 2, 1, 3]), [groups, rows, -1])


def _product(tf: Any, signal: Any, kernel: Any, bias: Any, rates: Any) -> Any:
    """Return rate * (signal @ kernel + bias), (K, B, v); gradients as of the weights, see above."""

    def product(signal: Any, kernel: Any, bias: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            return (
                tf.matmul(upstream * rates, kernel, transpose_b=True),
                tf.matmul(signal, upstream, transpose_a=True),
                tf.reduce_sum(upstream, 1),
            )

        return (tf.matmul(signal, kernel) + bias[:, None]) * rates, gradient

    return tf.custom_gradient(product)(signal, kernel, bias)


# ---- measures --------------------------------------------------------------------------------------------


def _cross_entropy(tf: Any, program: Program, logits: Any, labels: Any, smoothing: Any) -> Any:
    """Return the cross-entropy on logits, (K, B)."""
    if program.binary:
        smoothing = smoothing[:, None]
        targets = tf.cast(labels, tf.float32) * (1.0 - smoothing) + smoothing / 2.0
        return _binary_cross_entropy(tf, logits[:, :, 0], targets)
    smoothing, classes = smoothing[:, None, None], tf.shape(logits)[-1]
    targets = tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / tf.cast(classes, tf.float32)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def _binary_cross_entropy(tf: Any, logits: Any, targets: Any) -> Any:
    """Return softplus(logit) - target * logit; TensorFlow's own function is a dozen operations more."""

    def entropy(logits: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            return upstream * (tf.sigmoid(logits) - targets)

        return tf.nn.softplus(logits) - targets * logits, gradient

    return tf.custom_gradient(entropy)(logits)


def _hits(tf: Any, program: Program, logits: Any, labels: Any) -> Any:
    """Return 1 where the class is right, (K, B)."""
    if program.binary:
        said = tf.cast(logits[:, :, 0] > 0.0, tf.int32)
    else:
        said = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.cast(said == labels, tf.float32)


def _trained_on(tf: Any, program: Program, folds: Any, numbers: Any) -> Any:
    """Return 1 for the rows that a head trains on, (K, B), or None for all."""
    return tf.cast(folds != numbers["held_out"][:, None], tf.float32) if program.has_folds else None


def _held_out(tf: Any, program: Program, folds: Any, numbers: Any) -> Any:
    return tf.cast(folds == numbers["held_out"][:, None], tf.float32) if program.has_folds else None


def _sums(tf: Any, values: Any, counted: Any) -> tuple[Any, Any]:
    """Return the sum of `values` (K, B) over the counted rows, and their number, (K,) each."""
    if counted is None:
        sums = tf.reduce_sum(values, 1)
        return sums, tf.zeros_like(sums) + tf.cast(tf.shape(values)[1], tf.float32)
    return tf.reduce_sum(values * counted, 1), tf.reduce_sum(counted, 1)


def _penalized(
    tf: Any, program: Program, values: Any, gradients: Any, numbers: Any
) -> tuple[Sequence[Any], Any]:
    """Add the L2 penalty's gradient to those of the kernels and return the penalty too, (K,)."""
    rates, l2 = numbers["learning_rate"], numbers["l2"]
    penalty = tf.zeros_like(rates)
    summed = list(gradients)
    for layer in range(program.layers):
        kernel = values[2 * layer]
        pull = kernel * _for_kernel(tf, 2.0 * l2 * rates, kernel)
        summed[2 * layer] += pull
        penalty += 0.5 * rates * _sum_by_head(tf, pull * kernel, tf.size(rates))
    return summed, penalty


def _for_kernel(tf: Any, by_head: Any, kernel: Any) -> Any:
    """Lay numbers (K,) out so that they multiply the kernels of their heads."""
    if kernel.shape.rank == 2:
        return tf.repeat(by_head, tf.shape(kernel)[1] // tf.size(by_head))
    groups, columns = tf.shape(kernel)[0], tf.shape(kernel)[2]
    return tf.reshape(tf.repeat(by_head, groups * columns // tf.size(by_head)), [groups, 1, columns])


def _sum_by_head(tf: Any, squares: Any, heads: Any) -> Any:
    """Sum a kernel's squares over everything but the heads, (K,)."""
    columns = tf.reduce_sum(squares, -2)
    return tf.reduce_sum(tf.reshape(columns, [heads, -1]), 1)


# ---- updates, at a rate of 1 -----------------------------------------------------------------------------


def _adam(tf: Any, handle: Any, slots: Any, gradient: Any, step: Any, momentum: Any) -> None:
    """Kingma and Ba, arXiv 1412.6980, in the form before section 2.1: epsilon is not bias-corrected."""
    time = tf.cast(step + 1, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=handle,
        m=slots[0],
        v=slots[1],
        beta1_power=tf.pow(BETA_1, time),
        beta2_power=tf.pow(BETA_2, time),
        lr=1.0,
        beta1=BETA_1,
        beta2=BETA_2,
        epsilon=EPSILON,
        grad=gradient,
    )


def _rmsprop(tf: Any, handle: Any, slots: Any, gradient: Any, step: Any, momentum: Any) -> None:
    """The kernel divides by sqrt(mean square + epsilon): epsilon inside of the root, as Keras 3 has it."""
    tf.raw_ops.ResourceApplyRMSProp(
        var=handle,
        ms=slots[0],
        mom=slots[1],
        lr=1.0,
        rho=RHO,
        momentum=momentum,
        epsilon=EPSILON,
        grad=gradient,
    )


def _sgd(tf: Any, handle: Any, slots: Any, gradient: Any, step: Any, momentum: Any) -> None:
    if not slots:
        tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=1.0, delta=gradient)
        return
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=handle, accum=slots[0], lr=1.0, grad=gradient, momentum=momentum
    )


_UPDATES: dict[str, Callable[..., None]] = {"adam": _adam, "rmsprop": _rmsprop, "sgd": _sgd}
