"""Builds a base in Keras: network, weights, preprocessing and pooling as one model, pixels to features."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from featcache.bases.contract import Network
from featcache.bases.private import own_weights
from featcache.bases.spec import (
    APPLICATIONS,
    HUB_PREFIX,
    BaseSpec,
    check_settings,
    short_name,
    source_of,
    weights_file,
)
from featcache.errors import BaseNetworkError, WeightsError, did_you_mean
from featcache.recipe import BaseSettings
from featcache.runtime import keras, pooling_layer

Preprocess = Callable[[Any], Any]

# Keras names the second DepthwiseConv2D of a process "depthwise_conv2d_1".
_AUTOMATIC = re.compile(r"(.+?)(?:_(\d+))?")

# The ResNet presets of KerasHub (He et al., 2015, table 1), so that they can be built with random weights or
# a weights file on a machine without internet access.
_HUB_RESNETS: dict[str, tuple[str, list[int], list[int]]] = {
    "resnet_18_imagenet": ("basic_block", [64, 128, 256, 512], [2, 2, 2, 2]),
    "resnet_50_imagenet": ("bottleneck_block", [64, 128, 256, 512], [3, 4, 6, 3]),
    "resnet_101_imagenet": ("bottleneck_block", [64, 128, 256, 512], [3, 4, 23, 3]),
    "resnet_152_imagenet": ("bottleneck_block", [64, 128, 256, 512], [3, 8, 36, 3]),
}


@dataclass(frozen=True)
class _Backbone:
    """A whole network with its preprocessing function, and the names of both for the spec."""

    model: Any
    preprocess: Preprocess
    preprocessing: str
    architecture: str


def build_network(settings: BaseSettings, precision: str = "f32", dtype: str = "float32") -> Network:
    """Build the base that the settings describe.

    Parameters
    ----------
    settings : BaseSettings
    precision, dtype : str
        Written into the spec; the Keras model itself computes in f32.

    Raises
    ------
    BaseNetworkError
        Unknown network or layer, an image size or an argument that the network does not take.
    WeightsError
        Weights that cannot be reached or do not fit.
    """
    check_settings(settings)
    backbone = _backbone(settings)
    layer = _layer(backbone.model, settings)
    cut = keras().Model(backbone.model.inputs, layer.output)
    if settings.weights == "random":
        randomize(cut, settings.seed)
    cut.trainable = False
    preprocess, preprocessing = _preprocessing(backbone, settings)
    pixels = keras().Input((*settings.image_size, 3), dtype="uint8", name="pixels")
    features = cut(preprocess(keras().ops.cast(pixels, "float32")), training=False)
    features = _pool(features, settings.pooling)
    model = keras().Model(pixels, features, name=f"{short_name(settings)}-base".replace(" ", "_"))
    spec = BaseSpec(
        name=short_name(settings),
        architecture=backbone.architecture,
        arguments=settings.arguments,
        weights=weights_hash(cut),
        layer=layer.name,
        pooling=settings.pooling,
        image_size=settings.image_size,
        resize=settings.resize,
        interpolation=settings.interpolation,
        range=settings.range,
        color_profile=settings.color_profile,
        preprocessing=preprocessing,
        precision=precision,
        dtype=dtype,
        feature_shape=tuple(features.shape[1:]),
    )
    return Network(model, spec, cut)


def _backbone(settings: BaseSettings) -> _Backbone:
    backbone = SOURCES[source_of(settings.name)](settings)
    path = weights_file(settings)
    if path:
        _load_weights(backbone.model, path, settings)
    _reset_layer_numbers(backbone.model)
    return backbone


def _reset_layer_numbers(model: Any) -> None:
    """Give layers that Keras names automatically the names that they have in a fresh process.

    Keras counts layers per process: the ``add_3`` of a network would be ``add_19`` when it is built again,
    and the name of a layer is part of the spec.
    """
    counted: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for operation in _operations(model):
        kind, number = _AUTOMATIC.fullmatch(operation.name).group(1, 2)  # type: ignore[union-attr]
        of_kind = kind.replace("_", "") == type(operation).__name__.lower()
        if of_kind and not isinstance(operation, keras().layers.InputLayer):
            counted[kind].append((int(number or 0), operation))
    for kind, operations in counted.items():
        for number, (_, operation) in enumerate(sorted(operations, key=itemgetter(0))):
            operation.name = f"{kind}_{number}" if number else kind


def _operations(model: Any) -> Sequence[Any]:
    """Return the network's layers and, between them, sums and the like that are no layers."""
    found: Sequence[Any] = model.operations if hasattr(model, "operations") else model.layers
    return found


def _from_applications(settings: BaseSettings) -> _Backbone:
    weights = "imagenet" if settings.weights == "imagenet" else None
    try:
        model = getattr(keras().applications, settings.name)(
            include_top=False, weights=weights, input_shape=(*settings.image_size, 3), **settings.arguments
        )
    except (ValueError, TypeError) as error:
        raise BaseNetworkError(
            f"{settings.name} cannot be built with these settings: {_first_line(error)}"
        ) from None
    except Exception as error:
        # Keras raises a bare Exception when a download fails
        if weights and _is_download_failure(error):
            raise WeightsError(_unreachable(settings)) from None
        raise
    module = APPLICATIONS[settings.name]
    preprocess = getattr(keras().applications, module).preprocess_input
    name = f"keras.applications.{settings.name}"
    return _Backbone(model, preprocess, f"keras.applications.{module}", name)


def _is_download_failure(error: Exception) -> bool:
    return isinstance(error, OSError) or "URL fetch failure" in str(error) or "hash" in str(error)


def _unreachable(settings: BaseSettings) -> str:
    return (
        f"the ImageNet weights of {settings.name} cannot be downloaded from here; give a weights file that "
        "you have with --weights FILE, or try the pipeline without them with --weights random"
    )


def _from_hub(settings: BaseSettings) -> _Backbone:
    keras()
    try:
        import keras_hub
    except ImportError:
        raise BaseNetworkError(
            f"base.name = {settings.name!r} needs KerasHub, which is not installed: "
            "pip install 'featcache[hub]'"
        ) from None
    preset = settings.name.removeprefix(HUB_PREFIX)
    if settings.weights != "imagenet" and preset in _HUB_RESNETS:
        model = _hub_resnet(keras_hub, preset, settings)
    else:
        model = _hub_preset(keras_hub, preset, settings)
    preprocess, preprocessing = _hub_preprocess(keras_hub, preset)
    return _Backbone(model, preprocess, preprocessing, f"keras_hub.{preset}")


def _hub_resnet(keras_hub: Any, preset: str, settings: BaseSettings) -> Any:
    block_type, filters, blocks = _HUB_RESNETS[preset]
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=filters,
        stackwise_num_blocks=blocks,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block_type,
        image_shape=(*settings.image_size, 3),
        **settings.arguments,
    )


def _hub_preset(keras_hub: Any, preset: str, settings: BaseSettings) -> Any:
    known = keras_hub.models.Backbone.presets
    if preset not in known:
        near = did_you_mean(preset, known)
        raise BaseNetworkError(f"base.name = {settings.name!r} is not a preset of KerasHub.{near}")
    try:
        model = keras_hub.models.Backbone.from_preset(
            preset, load_weights=settings.weights == "imagenet", **settings.arguments
        )
    except Exception as error:  # noqa: BLE001
        # the hub's clients raise types of their own when the net cannot be reached
        raise WeightsError(
            f"the preset {preset} of KerasHub cannot be loaded ({_first_line(error)}). Without internet "
            f"access {', '.join(_HUB_RESNETS)} can be built with --weights FILE or --weights random"
        ) from None
    if not hasattr(model, "layers") or not hasattr(model.output, "shape"):
        raise BaseNetworkError(f"{settings.name} is not an image network with a single output")
    return model


def _hub_preprocess(keras_hub: Any, preset: str) -> tuple[Preprocess, str]:
    if preset in _HUB_RESNETS:
        # the presets' own converter: (x / 255 - mean) / standard deviation of ImageNet's channels
        utils = keras().applications.imagenet_utils
        return lambda x: utils.preprocess_input(x, mode="torch"), "torch"
    converter = keras_hub.layers.ImageConverter.from_preset(preset)
    scale = np.asarray(1 if converter.scale is None else converter.scale, np.float32)
    offset = np.asarray(0 if converter.offset is None else converter.offset, np.float32)
    return lambda x: x * scale + offset, f"x * {scale.tolist()} + {offset.tolist()}"


def _from_keras_file(settings: BaseSettings) -> _Backbone:
    path = Path(settings.name)
    try:
        model = keras().saving.load_model(path, compile=False, safe_mode=True)
        with zipfile.ZipFile(path) as archive:
            architecture = "sha256:" + hashlib.sha256(archive.read("config.json")).hexdigest()
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BaseNetworkError(
            f"{path} cannot be loaded as a Keras model in safe mode: {_first_line(error)}"
        ) from None
    expected = tuple(model.inputs[0].shape[1:]) if len(model.inputs) == 1 else ()
    wanted = (*settings.image_size, 3)
    if len(expected) != 3 or any(
        have not in (None, want) for have, want in zip(expected, wanted, strict=True)
    ):
        raise BaseNetworkError(
            f"{path} takes inputs of shape {expected}, not images of {wanted}; "
            "set base.image_size to what it takes"
        )
    return _Backbone(model, lambda x: x, "none", architecture)


SOURCES: dict[str, Callable[[BaseSettings], _Backbone]] = {
    "keras.applications": _from_applications,
    "KerasHub": _from_hub,
    ".keras file": _from_keras_file,
}


def _load_weights(model: Any, path: Path, settings: BaseSettings) -> None:
    try:
        with warnings.catch_warnings():
            # Keras also raises what it warns of here, in one sentence instead of dozens
            warnings.simplefilter("ignore")
            model.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"the weights in {path} do not fit {settings.name}"
            f"{f' with {settings.arguments}' if settings.arguments else ''}: {_first_line(error)}"
        ) from None


def _layer(model: Any, settings: BaseSettings) -> Any:
    by_name = {operation.name: operation for operation in _operations(model)}
    if settings.layer is None:
        return model.layers[-1]
    if settings.layer not in by_name:
        names = [layer.name for layer in model.layers]
        near = did_you_mean(settings.layer, names)
        raise BaseNetworkError(
            f"base.layer = {settings.layer!r} is not a layer of {settings.name}.{near} "
            f"It has {len(names)} layers, from {names[1]!r} to {names[-1]!r}"
        )
    layer = by_name[settings.layer]
    if not hasattr(layer.output, "shape"):
        raise BaseNetworkError(
            f"base.layer = {settings.layer!r} has several outputs; choose a layer with one"
        )
    return layer


def _preprocessing(backbone: _Backbone, settings: BaseSettings) -> tuple[Preprocess, str]:
    chosen: dict[str, tuple[Preprocess, str]] = {
        "auto": (backbone.preprocess, backbone.preprocessing),
        "rescale": (lambda x: x / 255.0, "rescale"),
        "none": (lambda x: x, "none"),
    }
    return chosen[settings.preprocessing]


def _pool(features: Any, pooling: str) -> Any:
    layer = pooling_layer(pooling) if len(features.shape) == 4 else None
    return features if layer is None else layer(features)


def randomize(model: Any, seed: int) -> None:
    """Draw every kernel of `model` from He's normal distribution, reproducibly across Keras versions.

    Keras's own initializers are not used: their numbers may change between versions, and the fingerprint
    with them. Biases, scales and moving statistics keep their initial constants.
    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 10.
    """
    depthwise = keras().layers.DepthwiseConv2D
    generator = np.random.default_rng(seed)
    for layer, weight in own_weights(model):
        if len(weight.shape) >= 2:
            single = isinstance(layer, depthwise) or "depthwise" in weight.name
            fan_in = np.prod(weight.shape[:2] if single else weight.shape[:-1])
            weight.assign(generator.standard_normal(weight.shape, np.float32) * np.sqrt(2.0 / fan_in))


def weights_hash(model: Any) -> str:
    """Return the SHA-256 over shape, dtype and values of all weights of `model`, in the layers' order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(weight.numpy())
        digest.update(f"{value.shape} {value.dtype};".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
