"""Which network, cut where, fed how: the plain facts about a base, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import BaseNetworkError, WeightsError, did_you_mean
from featcache.files import file_sha256
from featcache.processor import has_bf16
from featcache.recipe import BaseSettings
from featcache.versions import DECODER, NETWORKS

# The classification networks of keras.applications, and the module there that prepares their pixels.
APPLICATIONS: dict[str, str] = {
    **dict.fromkeys([f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")], "convnext"),
    **dict.fromkeys([f"DenseNet{depth}" for depth in (121, 169, 201)], "densenet"),
    **dict.fromkeys([f"EfficientNetB{size}" for size in range(8)], "efficientnet"),
    **dict.fromkeys(
        [f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")], "efficientnet_v2"
    ),
    "InceptionResNetV2": "inception_resnet_v2",
    "InceptionV3": "inception_v3",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    **dict.fromkeys(["MobileNetV3Large", "MobileNetV3Small"], "mobilenet_v3"),
    **dict.fromkeys(["NASNetLarge", "NASNetMobile"], "nasnet"),
    **dict.fromkeys(["ResNet50", "ResNet101", "ResNet152"], "resnet"),
    **dict.fromkeys(["ResNet50V2", "ResNet101V2", "ResNet152V2"], "resnet_v2"),
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "Xception": "xception",
}

HUB_PREFIX = "hub:"
KERAS_SUFFIX = ".keras"


@dataclass(frozen=True)
class BaseSpec:
    """All that the numbers of the features depend on, and nothing else.

    Attributes
    ----------
    name : str
        For people and folder names; no part of the fingerprint.
    architecture : str
        The network: ``keras.applications.VGG16``, ``keras_hub.NAME`` or ``sha256:`` of a ``.keras`` file's
        configuration.
    arguments : dict
        Further arguments of the network's function.
    weights : str
        SHA-256 over shapes, dtypes and values of the weights up to `layer`.
    layer, pooling
        Where the network is cut and what is pooled after it.
    image_size : tuple of int
        (height, width) in pixels.
    resize, interpolation, decoder
        How a photo becomes pixels; `decoder` is the version of the decoding code.
    networks : int
        Version of the code that builds the network.
    preprocessing : str
        How pixels of 0 to 255 are prepared.
    precision : str
        Of the network's products.
    dtype : str
        In which features are stored.
    feature_shape : tuple of int
        Of one image's features, (h, w, c) or (c,). It follows from the rest.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    weights: str
    layer: str
    pooling: str
    image_size: tuple[int, int]
    resize: str
    interpolation: str
    preprocessing: str
    precision: str
    dtype: str
    feature_shape: tuple[int, ...]
    decoder: int = DECODER
    networks: int = NETWORKS

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ whenever the features could."""
        facts = {key: value for key, value in self.to_json().items() if key != "name"}
        return _digest_of_json(facts)[:16]

    @property
    def folder_name(self) -> str:
        """Name of the base's folder in the store."""
        return f"{self.name}-{self.fingerprint}"

    @property
    def row_bytes(self) -> int:
        """Size of one image's features in bytes."""
        return int(np.prod(self.feature_shape)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-ready data."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> BaseSpec:
        """Make a spec from what `to_json` gave."""
        pairs = {key: tuple(facts[key]) for key in ("image_size", "feature_shape")}
        return cls(**{**facts, **pairs})


def short_name(settings: BaseSettings) -> str:
    """Return what a base is called in folders and tables: "VGG16", "resnet_18_imagenet", a file's stem."""
    if settings.name.endswith(KERAS_SUFFIX):
        return Path(settings.name).stem
    return settings.name.removeprefix(HUB_PREFIX)


def check_settings(settings: BaseSettings) -> None:
    """Find out what can be found out about the settings without building the network.

    Raises
    ------
    BaseNetworkError, WeightsError
        Unknown network, missing file, an argument that featcache sets itself.
    """
    name = settings.name
    if name.endswith(KERAS_SUFFIX):
        if not Path(name).is_file():
            raise BaseNetworkError(f"base.name = {name!r}: there is no such file")
    elif not name.startswith(HUB_PREFIX) and name not in APPLICATIONS:
        near = did_you_mean(name, APPLICATIONS)
        raise BaseNetworkError(
            f"base.name = {name!r} is no network of keras.applications.{near} Known are "
            f"{', '.join(APPLICATIONS)}; hub:NAME takes one from KerasHub, FILE.keras one of your own"
        )
    reserved = {"include_top", "weights", "input_shape", "input_tensor", "pooling", "classes", "name"}
    for key in reserved & set(settings.arguments):
        raise BaseNetworkError(f"base.arguments.{key} is set by featcache itself; leave it out")
    if settings.engine == "tensorflow" and settings.precision == "bf16":
        raise BaseNetworkError(
            "base.precision = 'bf16' runs with OpenVINO only; use --engine openvino, or --precision f32"
        )
    path = weights_file(settings)
    if path and not path.is_file():
        raise WeightsError(
            f"base.weights = {settings.weights!r}: there is no such file; give a weights file, "
            '"imagenet" or "random"'
        )


def weights_file(settings: BaseSettings) -> Path | None:
    """Return the weights file that the settings name, or None for "imagenet" and "random"."""
    return None if settings.weights in ("imagenet", "random") else Path(settings.weights)


def files_of(settings: BaseSettings) -> dict[str, Path]:
    """Return the files that the settings name, by key: a ``.keras`` network, a weights file."""
    files = {} if (path := weights_file(settings)) is None else {"weights": path}
    return files | ({"name": Path(settings.name)} if settings.name.endswith(KERAS_SUFFIX) else {})


def resolved_precision(settings: BaseSettings) -> tuple[str, str]:
    """Return the precision of the products and the stored type that the settings mean on this machine.

    "auto" is bf16 where the processor multiplies it in hardware, f32 elsewhere and with TensorFlow; bf16
    features are stored as float16, f32 ones as float32.
    """
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_bf16() and settings.engine != "tensorflow" else "f32"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float16" if precision == "bf16" else "float32"
    return precision, dtype


def question(settings: BaseSettings) -> str:
    """Return a hash of all from which a spec follows, files by their bytes: the key to remember a spec by.

    The versions of the packages that build the network are part of it: another may fetch other weights.
    """
    asked = settings.model_dump(mode="json", exclude={"batch_size"})
    for key, path in files_of(settings).items():
        asked[key] = f"{path.stem}:{file_sha256(path)}"
    asked["precision"], asked["dtype"] = resolved_precision(settings)
    packages = ["keras", "openvino", *(["keras-hub"] if settings.name.startswith(HUB_PREFIX) else [])]
    versions = {package: version(package) for package in packages}
    return _digest_of_json({**asked, **versions, "decoder": DECODER, "networks": NETWORKS})


def _digest_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
