"""What a trained model needs where its base is gone, in words."""

from __future__ import annotations

import re
from pathlib import Path

from featcache.bases.spec import KERAS_SUFFIX, BaseSpec, weights_file
from featcache.errors import WeightsError
from featcache.recipe import BaseSettings

# Errors of building a network go on with advice for training, which is wrong for a model: other weights.
_ADVICE = re.compile(r"; |\. ")


def with_weights(settings: BaseSettings, file: str) -> BaseSettings:
    """Return a model's settings with the file that its base's weights, or the whole network, are in now.

    Raises
    ------
    WeightsError
        There is no such file.
    """
    if not Path(file).is_file():
        raise WeightsError(f"--weights {file}: there is no such file; give the one of the model's training")
    is_network = settings.name.endswith(KERAS_SUFFIX) and file.endswith(KERAS_SUFFIX)
    return settings.model_copy(update={"name" if is_network else "weights": file})


def what_is_needed(settings: BaseSettings, spec: BaseSpec, error: Exception) -> str:
    """Say which weights a model's base needs, and how to give them.

    Parameters
    ----------
    settings : BaseSettings
        Of the model.
    spec : BaseSpec
        That its head was trained on.
    error : BaseNetworkError, WeightsError or ImportError
        Why the base cannot be built.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, ImportError):
        reason, advice = f"building it needs TensorFlow and Keras ({text.splitlines()[0]})", ""
    else:
        reason = _ADVICE.split(text.splitlines()[0])[0]
        advice = f"give {_file_needed(settings)} with --weights FILE (Model.load(..., weights=FILE)), "
    return (
        f"no store here has the converted base {spec.folder_name} of this model, and it cannot be built: "
        f"{reason}. It was trained with {_weights(settings)} (SHA-256 of the values: {spec.weights}); "
        f"{advice}name the store that has the base with --cache, or pack the model where it was trained: "
        "featcache pack MODEL -o FILE.zip"
    )


def _file_needed(settings: BaseSettings) -> str:
    return "that file" if _file(settings) is not None else "a file of these weights"


def _weights(settings: BaseSettings) -> str:
    path = _file(settings)
    if path is not None:
        return f"the file {path.name}"
    if settings.weights == "random":
        return f"random weights of seed {settings.seed}"
    return f"the ImageNet weights of {settings.name}"


def _file(settings: BaseSettings) -> Path | None:
    """Return the file that the weights came from: a weights file, or a whole network."""
    return weights_file(settings) or (Path(settings.name) if settings.name.endswith(KERAS_SUFFIX) else None)


def wrong_weights(now: BaseSpec, then: BaseSpec) -> str:
    """Say that a base that was built is not the one that a model's head was trained on."""
    differ = now.weights != then.weights
    hashes = f" (SHA-256 of the values: {now.weights}, not {then.weights})" if differ else ""
    return (
        f"the model was trained on {then.folder_name}, but its base is now {now.folder_name}: the file of "
        f"its weights is another one{hashes}, or another version of Keras gives other weights. Give the file "
        "that it was trained with (--weights FILE), or train the head again"
    )
