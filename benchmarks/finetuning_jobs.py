"""What is fine-tuned, in words that both sides understand.

featcache is not imported: the peer's process has only what its users have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """Layers of a network to train further.

    Attributes
    ----------
    name : str
    network, keras_module : str
        Its class and its module in ``keras.applications``.
    image_size : int
    from_layer : str or int
        The first layer to train: its name, or its index as Keras counts.
    bar, bar_bf16 : float
        How many times faster than the peer an epoch should be.
    rows, held_out : int
        Photos to train on and to measure after every epoch.
    epochs : int
        The first of them traces and is not counted.
    batch_size : int
    learning_rate : float
        Of RMSprop.
    """

    name: str
    network: str
    keras_module: str
    image_size: int
    from_layer: str | int
    bar: float
    bar_bf16: float
    rows: int
    held_out: int
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-5

    @property
    def title(self) -> str:
        return (
            f"{self.name}: {self.network} at {self.image_size} px from {self.from_layer} on, epochs of "
            f"{self.rows:,} photos, {self.held_out:,} measured after each"
        )


JOBS = (
    Job("vgg16_150", "VGG16", "vgg16", 150, "block5_conv1", bar=3.5, bar_bf16=10, rows=128, held_out=64),
    Job(
        "mobilenetv2_160",
        "MobileNetV2",
        "mobilenet_v2",
        160,
        100,
        bar=1.5,
        bar_bf16=1.5,
        rows=1000,
        held_out=500,
    ),
)

QUICK_ROWS = 64


def weights_of(job: Job, shared: Path) -> str:
    """Return a weights file where there is one, else "random": the speed does not depend on them."""
    file = shared / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5"
    return str(file) if job.network == "MobileNetV2" and file.is_file() else "random"
