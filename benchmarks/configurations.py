"""What is measured: networks, sizes and how many photos go through them.

Only the standard library is used here, so that a peer can read it in an environment without featcache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

QUICK_COUNT = 64


@dataclass(frozen=True)
class Configuration:
    """A base and its input, in words that all sides understand.

    Attributes
    ----------
    name : str
    network, keras_module : str
        Its class and its module in ``keras.applications``.
    torch_name : str
        Its name in ``torchvision.models``.
    image_size : int
        Side of the square input in pixels.
    preprocessing : {"auto", "rescale"}
        The network's own ``preprocess_input``, or x / 255.
    interpolation : str
        featcache's; the peers keep their own defaults.
    pooling : {"none", "avg"}
    precision : {"auto", "f32"}
        featcache's; the peers compute in float32.
    weights : str
        "random" or a weights file.
    count : int
        So many photos that a run takes each side 10 to 60 s on a slow machine.
    """

    name: str
    network: str
    keras_module: str
    torch_name: str
    image_size: int
    preprocessing: str
    interpolation: str
    pooling: str
    precision: str
    weights: str
    count: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Configuration:
        return cls(**json.loads(text))


_MOBILENET_WEIGHTS = "mobilenet_v2_1.0_224_notop.weights.h5"


def _vgg16() -> Configuration:
    return Configuration(
        name="vgg16_150",
        network="VGG16",
        keras_module="vgg16",
        torch_name="vgg16",
        image_size=150,
        preprocessing="rescale",
        interpolation="nearest",
        pooling="none",
        precision="auto",
        weights="random",
        count=320,
    )


def _mobilenet(name: str, image_size: int, precision: str, weights: str) -> Configuration:
    return Configuration(
        name=name,
        network="MobileNetV2",
        keras_module="mobilenet_v2",
        torch_name="mobilenet_v2",
        image_size=image_size,
        preprocessing="auto",
        interpolation="bilinear",
        pooling="avg",
        precision=precision,
        weights=weights,
        count=2000,
    )


def configurations(shared: Path) -> list[Configuration]:
    """Return all configurations; ImageNet weights are taken from the shared folder where they are there."""
    file = shared / "weights" / _MOBILENET_WEIGHTS
    weights = str(file) if file.is_file() else "random"
    return [
        _vgg16(),
        _mobilenet("mobilenetv2_160", 160, "auto", weights),
        _mobilenet("mobilenetv2_96", 96, "auto", weights),
        _mobilenet("mobilenetv2_160_f32", 160, "f32", weights),
    ]


def choose(
    known: Sequence[Configuration], only: Sequence[str], counts: Sequence[str], quick: bool
) -> list[Configuration]:
    """Return the configurations that the options ask for, with their photo counts.

    Parameters
    ----------
    known : sequence of Configuration
    only : sequence of str
        Names; none means all.
    counts : sequence of str
        "N" for all or "NAME=N" for one; a later one wins.
    quick : bool
        A few photos only, where `counts` says nothing.

    Raises
    ------
    ValueError
        A name that none of them has.
    """
    by_name = {one.name: one for one in known}
    if quick:
        by_name = {name: replace(one, count=QUICK_COUNT) for name, one in by_name.items()}
    for text in counts:
        name, equals, number = text.rpartition("=")
        for key in [_checked(name, by_name)] if equals else list(by_name):
            by_name[key] = replace(by_name[key], count=int(number))
    return [by_name[_checked(name, by_name)] for name in only] if only else list(by_name.values())


def _checked(name: str, known: dict[str, Configuration]) -> str:
    if name not in known:
        raise ValueError(f"no configuration is named {name!r}; there are {', '.join(known)}")
    return name
