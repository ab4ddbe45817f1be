"""The plain facts about a base, its fingerprint, and the settings that they follow from."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from featcache import processor
from featcache.errors import BaseNetworkError, WeightsError, did_you_mean
from featcache.files import file_sha256
from featcache.recipe import BaseSettings
from featcache.versions import DECODER, NETWORKS

# The classification networks of keras.applications, and the module with their preprocess_input.
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

_CHOICES = {
    "pooling": ("none", "avg", "max"),
    "resize": ("stretch", "crop", "pad"),
    "color_profile": ("convert", "ignore"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos", "box"),
    "precision": ("f32", "bf16"),
    "dtype": ("float16", "float32"),
}
_TYPES = {
    "name": str,
    "architecture": str,
    "arguments": dict,
    "weights": str,
    "layer": str,
    "preprocessing": str,
    "decoder": int,
    "networks": int,
}
# Settings that came later: at their default they are left out, so that fingerprints stay what they were.
_LATER: dict[str, Any] = {"range": "full", "color_profile": "convert"}
# The name becomes part of a folder's name; the weights are a SHA-256.
_PATTERNS = {"name": r"[^/\\\x00-\x1f\x7f]{1,200}", "weights": r"[0-9a-f]{64}"}
_MAX_VALUES = 1 << 31  # of one image's features
_MAX_SIDE = 1 << 14


@dataclass(frozen=True)
class BaseSpec:
    """Everything that the features depend on, and nothing else.

    Attributes
    ----------
    name : str
        Shown to people and part of folder names; not part of the fingerprint.
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
    resize, interpolation, range, color_profile, decoder
        How a photo becomes pixels; `decoder` is the version of the decoding code.
    networks : int
        Version of the code that builds the network.
    preprocessing : str
        What happens to pixels of 0 to 255 before the network.
    precision : {"f32", "bf16"}
        In which the network computes.
    dtype : {"float16", "float32"}
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
    range: str | tuple[float, float] = "full"
    color_profile: str = "convert"

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
        """Return the facts as JSON-ready data; `range` and `color_profile` unless they are the default."""
        facts = {key: value for key, value in asdict(self).items() if _LATER.get(key) != value}
        return dict(json.loads(json.dumps(facts)))

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> BaseSpec:
        """Make a spec from what `to_json` gave.

        Raises
        ------
        ValueError, KeyError, TypeError
            A key is missing or unknown, or a value cannot be one of a base.
        """
        pairs = {key: tuple(facts[key]) for key in ("image_size", "feature_shape")}
        if isinstance(facts.get("range"), list):
            pairs["range"] = tuple(facts["range"])
        spec = cls(**{**facts, **pairs})
        _check_values(spec)
        return spec


def _check_values(spec: BaseSpec) -> None:
    """Raise a ValueError that names the first value which cannot be one of a base."""
    for key, kind in _TYPES.items():
        if type(getattr(spec, key)) is not kind:
            raise ValueError(f"{key} = {getattr(spec, key)!r} is not of type {kind.__name__}")
    for key, allowed in _CHOICES.items():
        if getattr(spec, key) not in allowed:
            raise ValueError(f"{key} = {getattr(spec, key)!r} is none of {', '.join(allowed)}")
    for key, pattern in _PATTERNS.items():
        if not re.fullmatch(pattern, getattr(spec, key)):
            raise ValueError(f"{key} = {getattr(spec, key)!r} cannot be the {key} of a base")
    _check_range(spec.range)
    _check_sizes("image_size", spec.image_size, range(2, 3), _MAX_SIDE)
    _check_sizes("feature_shape", spec.feature_shape, range(1, 5), _MAX_VALUES)


def _check_range(given: Any) -> None:
    if given not in ("full", "minmax"):
        numbers = isinstance(given, tuple) and [type(one) for one in given] == [float, float]
        if not numbers or not math.isfinite(given[1] - given[0]) or given[0] >= given[1]:
            raise ValueError(f"range = {given!r} cannot be the range of a base")


def _check_sizes(key: str, sizes: tuple[Any, ...], lengths: range, largest: int) -> None:
    positive = all(type(size) is int and 1 <= size <= largest for size in sizes)
    if len(sizes) not in lengths or not positive or math.prod(sizes) > _MAX_VALUES:
        raise ValueError(f"{key} = {sizes} cannot be the {key} of a base")


def source_of(name: str) -> str:
    """Return where the network called `name` comes from: "keras.applications", "KerasHub", ".keras file"."""
    if name.endswith(KERAS_SUFFIX):
        return ".keras file"
    return "KerasHub" if name.startswith(HUB_PREFIX) else "keras.applications"


def short_name(settings: BaseSettings) -> str:
    """Return the base's name in folders and tables: "VGG16", "resnet_18_imagenet", a file's stem."""
    if settings.name.endswith(KERAS_SUFFIX):
        return Path(settings.name).stem
    return settings.name.removeprefix(HUB_PREFIX)


def check_settings(settings: BaseSettings) -> None:
    """Check the settings as far as that is possible without building the network.

    Raises
    ------
    BaseNetworkError, WeightsError
        Unknown network, missing file, an argument that featcache sets itself.
    """
    name = settings.name
    if name.endswith(KERAS_SUFFIX):
        if not Path(name).is_file():
            raise BaseNetworkError(f"base.name = {name!r}: {_missing(Path(name))}")
    elif not name.startswith(HUB_PREFIX) and name not in APPLICATIONS:
        near = did_you_mean(name, APPLICATIONS)
        raise BaseNetworkError(
            f"base.name = {name!r} is not a network of keras.applications.{near} Known are "
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
            f"base.weights = {settings.weights!r}: {_missing(path)}; give a weights file, "
            '"imagenet" or "random"'
        )


def _missing(path: Path) -> str:
    # a pipe or a device is never opened: reading it can block or never end
    return "it is not a regular file" if path.exists() else "there is no such file"


def weights_file(settings: BaseSettings) -> Path | None:
    """Return the weights file that the settings name, or None for "imagenet" and "random"."""
    return None if settings.weights in ("imagenet", "random") else Path(settings.weights)


def files_of(settings: BaseSettings) -> dict[str, Path]:
    """Return the files that the settings name, by key: a ``.keras`` network, a weights file."""
    files = {} if (path := weights_file(settings)) is None else {"weights": path}
    return files | ({"name": Path(settings.name)} if settings.name.endswith(KERAS_SUFFIX) else {})


def allowed_precisions(settings: BaseSettings) -> tuple[str, ...]:
    """Return the precisions that the settings can resolve to on this machine.

    "auto" can be bf16 only where the processor multiplies bf16 in hardware and OpenVINO may run the base.
    """
    if settings.precision != "auto":
        return (settings.precision,)
    return ("f32", "bf16") if processor.has_bf16() and settings.engine != "tensorflow" else ("f32",)


def stored_dtype(settings: BaseSettings, precision: str) -> str:
    """Return the dtype that features are stored in; "auto" is float16 for bf16 and float32 for f32."""
    if settings.dtype != "auto":
        return settings.dtype
    return "float16" if precision == "bf16" else "float32"


def spec_key(settings: BaseSettings) -> str:
    """Return the key under which the spec of these settings is remembered: a hash of all it follows from.

    Files count by their bytes. The versions of the packages that build the network are part of the key, since
    another version may fetch other weights; so are the precisions that this machine allows.
    """
    facts = settings.model_dump(mode="json", exclude={"batch_size", "max_pixels"})
    facts = {key: value for key, value in facts.items() if _LATER.get(key) != value}
    for key, path in files_of(settings).items():
        facts[key] = f"{path.stem}:{file_sha256(path)}"
    facts["precision"] = allowed_precisions(settings)
    facts["dtype"] = [stored_dtype(settings, precision) for precision in facts["precision"]]
    packages = ["keras", "openvino", *(["keras-hub"] if settings.name.startswith(HUB_PREFIX) else [])]
    versions = {package: version(package) for package in packages}
    return _digest_of_json({**facts, **versions, "decoder": DECODER, "networks": NETWORKS})


def network_key(spec: BaseSpec) -> str:
    """Return the key under which the hash of a base's converted network is remembered."""
    return _digest_of_json({"network": spec.fingerprint})


def _digest_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
