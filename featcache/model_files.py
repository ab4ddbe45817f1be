"""A model's folder: written as a whole; validated, and checked by its hashes, when it is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from featcache.bases.spec import BaseSpec
from featcache.errors import ModelError
from featcache.files import folder_written_whole, read_regular, write_bytes_whole
from featcache.recipe import BaseSettings
from featcache.recipe.names import check_folder_name
from featcache.run.layout import MODEL_FILE
from featcache.store.format import MODEL_FORMAT, check_format

MAX_FACTS_BYTES = 64 << 20

# Version 0.1 kept curves and out-of-fold predictions here; they belong to the head that is replaced.
_OWN_FILES = {MODEL_FILE, "head.keras", "head.skops", "linear.npz", "curves.png", "out_of_fold.csv"}
_SAME_IN_SPEC = ("arguments", "pooling", "image_size", "resize", "interpolation", "range", "color_profile")

Text = Annotated[str, Field(strict=True, max_length=4096)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _BaseFacts(_Strict):
    settings: dict[str, Any]
    spec: dict[str, Any]


class _Facts(_Strict):
    """``model.json`` as it must be."""

    format: int
    name: Text
    classes: Annotated[list[Text], Field(min_length=2, max_length=1_000_000)]
    base: _BaseFacts
    head: Literal["head.keras", "head.skops"]
    cache: Text
    scores: dict[str, Any]
    versions: dict[str, Any]
    sha256: str = ""
    files: dict[
        Literal["head.keras", "head.skops", "linear.npz"], Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    ] = {}

    @field_validator("name")
    @classmethod
    def _can_be_a_folder(cls, name: str) -> str:
        check_folder_name(name)
        return name

    @field_validator("classes")
    @classmethod
    def _differ(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes):
            raise ValueError("two classes have the same name")
        return classes

    @field_validator("cache")
    @classmethod
    def _can_be_a_path(cls, cache: str) -> str:
        if "\0" in cache:
            raise ValueError("a path cannot hold NUL")
        return cache


@dataclass(frozen=True)
class ModelFacts:
    """What ``model.json`` says, validated.

    Attributes
    ----------
    name : str
    classes : tuple of str
    settings : BaseSettings
    spec : BaseSpec
    head : Path
        File of the head.
    scores, versions : dict
    cache : Path
        The store that the model was trained with.
    """

    name: str
    classes: tuple[str, ...]
    settings: BaseSettings
    spec: BaseSpec
    head: Path
    scores: dict[str, Any]
    versions: dict[str, Any]
    cache: Path


def write_model(folder: Path, facts: dict[str, Any], save_head: Callable[[Path], str]) -> None:
    """Write a model's folder as a whole; a model that was there before is replaced in one step.

    Parameters
    ----------
    folder : Path
        Files in it that no model has are kept.
    facts : dict
        ``model.json`` without ``head`` and ``files``.
    save_head : callable
        Writes the head into the folder that it is given, and returns the file's name.

    Raises
    ------
    StoreError
        No room or no permission.
    ModelError
        The head is of a kind that cannot be saved.
    """
    with folder_written_whole(folder) as aside:
        head = save_head(aside)
        _keep_foreign_files(folder, aside)
        files = {path.name: _sha256(path.read_bytes()) for path in aside.iterdir() if path.name in _OWN_FILES}
        whole = with_hash(facts | {"format": MODEL_FORMAT, "head": head, "files": files})
        write_bytes_whole(aside / MODEL_FILE, (json.dumps(whole, indent=1) + "\n").encode())


def with_hash(facts: dict[str, Any]) -> dict[str, Any]:
    """Return `facts` with ``sha256``, the hash of all other keys as JSON with sorted keys."""
    facts = {key: value for key, value in facts.items() if key != "sha256"}
    return facts | {"sha256": _sha256(json.dumps(facts, sort_keys=True).encode())}


def _keep_foreign_files(folder: Path, aside: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in _OWN_FILES and not path.name.startswith("."):
            if path.is_dir():
                shutil.copytree(path, aside / path.name, symlinks=True)
            else:
                shutil.copy2(path, aside / path.name, follow_symlinks=False)


def read_model(folder: Path) -> ModelFacts:
    """Read and validate ``model.json``, and compare the files beside it with their hashes.

    Models of version 0.1 have no hashes.

    Raises
    ------
    ModelError
        A file is missing, cannot be read, is damaged, or describes what cannot be a model.
    FormatError
        A newer version wrote it.
    """
    path = folder / MODEL_FILE
    try:
        raw = dict(json.loads(_read(path)))
        check_format(raw.get("format"), MODEL_FORMAT, str(path))
        if "sha256" in raw and raw != with_hash(raw):
            raise ValueError("it was changed since it was written")
        facts = _Facts.model_validate(raw)
        settings = BaseSettings(**facts.base.settings)
        spec = BaseSpec.from_json(facts.base.spec)
        _check_agreement(settings, spec)
    except ValidationError as error:
        raise ModelError(
            f"{path} is not a valid model: {_first_error(error)}; train the head again"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{path} is not a valid model: {reason}; train the head again") from None
    _check_hashes(folder, facts.files)
    classes, head, cache = tuple(facts.classes), folder / facts.head, Path(facts.cache)
    return ModelFacts(facts.name, classes, settings, spec, head, facts.scores, facts.versions, cache)


def _first_error(error: ValidationError) -> str:
    one = error.errors()[0]
    key = ".".join(map(str, one["loc"]))
    value = f" = {one['input'][:50]!r}" if isinstance(one["input"], str) else ""
    return f"{key}{value}: {one['msg'].splitlines()[0]}"


def _check_agreement(settings: BaseSettings, spec: BaseSpec) -> None:
    """Refuse settings by which photos would be decoded otherwise than for the features of the spec."""
    for key in _SAME_IN_SPEC:
        if getattr(settings, key) != getattr(spec, key):
            raise ValueError(f"base.settings.{key} and base.spec.{key} differ")


def _check_hashes(folder: Path, files: dict[Any, str]) -> None:
    for name, digest in files.items():
        if _sha256(_read(folder / name)) != digest:
            raise ModelError(f"{folder / name} is damaged: its hash is wrong; train the head again")


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FACTS_BYTES if path.name == MODEL_FILE else None)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; train the head again") from None
    except OSError as error:
        # without permission, or handles, it may be as whole as ever
        raise ModelError(f"{path} cannot be read: {error.strerror or os.strerror(errno.EIO)}") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
