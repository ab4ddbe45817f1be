"""A model's files, in a folder or packed: written as a whole; validated, and checked by hashes when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from featcache.archives import open_archive
from featcache.bases.contract import NETWORK_FILE
from featcache.bases.spec import BaseSpec, files_of
from featcache.errors import ModelError
from featcache.files import folder_written_whole, read_regular, write_bytes_whole, written_whole
from featcache.model_photos import MAX_PHOTOS_BYTES, PHOTOS_FILE, ModelPhotos
from featcache.novelty_file import NOVELTY_FILE
from featcache.recipe import BaseSettings
from featcache.recipe.names import check_folder_name
from featcache.run.layout import MODEL_FILE
from featcache.store.format import MODEL_FORMAT, PACKED_MODEL_FORMAT, check_format

MAX_FACTS_BYTES = 64 << 20
# of a packed model, which is read into memory
_MAX_PACKED_BYTES = 8 << 30
_AT_MOST = {MODEL_FILE: MAX_FACTS_BYTES, PHOTOS_FILE: MAX_PHOTOS_BYTES}
_LINEAR_FILE = "linear.npz"

# Version 0.1 kept curves and out-of-fold predictions here; they belong to the head that is replaced.
_PARTS = {"head.keras", "head.skops", _LINEAR_FILE, NOVELTY_FILE, NETWORK_FILE, PHOTOS_FILE}
_OWN_FILES = {MODEL_FILE, *_PARTS, "curves.png", "out_of_fold.csv"}
_SAME_IN_SPEC = ("arguments", "pooling", "image_size", "resize", "interpolation", "range", "color_profile")

# What a damaged or foreign archive makes zipfile raise.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(KeyError, ValueError, NotImplementedError, RuntimeError, MemoryError),
)

Text = Annotated[str, Field(strict=True, max_length=4096)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _BaseFacts(_Strict):
    settings: dict[str, Any]
    spec: dict[str, Any]


class _Facts(_Strict):
    """``model.json`` as it must be."""

    format: int
    packed: int = 0
    name: Text
    classes: Annotated[list[Text], Field(min_length=2, max_length=1_000_000)]
    base: _BaseFacts
    head: Literal["head.keras", "head.skops"]
    cache: Text
    scores: dict[str, Any]
    versions: dict[str, Any]
    sha256: str = ""
    files: dict[
        Literal["head.keras", "head.skops", "linear.npz", "novelty.npz", "openvino.zip", "photos.npz"],
        Annotated[str, Field(pattern="^[0-9a-f]{64}$")],
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
class ModelFiles:
    """The files of a model.

    Attributes
    ----------
    place : Path
        The model's folder, or the packed file.
    members : dict of str to bytes, or None
        Of a packed model, what is in it.
    """

    place: Path
    members: Mapping[str, bytes] | None = None

    @classmethod
    def at(cls, place: Path) -> ModelFiles:
        """Return the files at `place`, of a packed model read into memory.

        Raises
        ------
        ModelError
            `place` is a file that is no packed model, or a damaged one.
        """
        return cls(place, _read_members(place) if place.is_file() else None)

    def path(self, name: str) -> Path:
        """Return a file's path, for messages."""
        return self.place / name

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        ModelError
            It is missing or cannot be read.
        """
        if self.members is None:
            return _read(self.path(name), self.advice)
        if name not in self.members:
            raise ModelError(f"{self.path(name)} does not exist; {self.advice}")
        return self.members[name]

    @property
    def advice(self) -> str:
        """What to do about damage."""
        return "train the head again" if self.members is None else "pack the model again"


@dataclass(frozen=True)
class HeadFile:
    """The head of a model, not yet loaded.

    Attributes
    ----------
    files : ModelFiles
    name : str
        Of the head's file.
    """

    files: ModelFiles
    name: str

    def load(self) -> Any:
        """Return the classifier; errors as of `featcache.heads.persistence.load_head`."""
        from featcache.heads.persistence import read_head

        return read_head(self.files.read(self.name), self.files.path(self.name))

    def load_linear(self) -> Any:
        """Return the head's linear form, which needs no scikit-learn, or None where there is no valid one."""
        from featcache.heads.linear import read_linear

        try:
            return read_linear(self.files.read(self.name), self.files.read(_LINEAR_FILE))
        except ModelError:
            return None  # the head's own file has everything that is in it


@dataclass(frozen=True)
class ModelFacts:
    """What ``model.json`` says, validated.

    Attributes
    ----------
    name : str
    classes : tuple of str
    settings : BaseSettings
    spec : BaseSpec
    head : HeadFile
    scores, versions : dict
    cache : Path or None
        The store that the model was trained with; None for a packed model, which needs none.
    files : ModelFiles
    novelty : bytes or None
        The content of ``novelty.npz``; None for models of version 0.1, and where novelty was not known.
    network : bytes or None
        The converted base, where it is among the model's files.
    photos : ModelPhotos or None
        None where an earlier version wrote the model.
    """

    name: str
    classes: tuple[str, ...]
    settings: BaseSettings
    spec: BaseSpec
    head: HeadFile
    scores: dict[str, Any]
    versions: dict[str, Any]
    cache: Path | None
    files: ModelFiles
    novelty: bytes | None
    network: bytes | None
    photos: ModelPhotos | None


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


def write_packed(path: Path, files: ModelFiles, network: bytes) -> None:
    """Write a model's files and its converted base into one file, whole or not at all.

    Nothing in it names a folder of this machine.

    Parameters
    ----------
    path : Path
    files : ModelFiles
    network : bytes
        What `featcache.bases.base.Base.converted_network` returned.

    Raises
    ------
    StoreError
        No room or no permission, or `path` is not a regular file.
    """
    facts = json.loads(files.read(MODEL_FILE))
    names = {facts["head"], *set(facts.get("files", {})) & _PARTS} - {NETWORK_FILE}
    members = {name: files.read(name) for name in sorted(names)} | {NETWORK_FILE: network}
    facts["packed"], facts["cache"] = PACKED_MODEL_FORMAT, ""
    facts["files"] = {name: _sha256(content) for name, content in members.items()}
    settings = facts["base"]["settings"]
    for key, file in files_of(BaseSettings(**settings)).items():
        settings[key] = file.name
    text = json.dumps(with_hash(facts), indent=1) + "\n"
    with written_whole(path) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, content in {MODEL_FILE: text.encode(), **members}.items():
            # a fixed date: the same model gives the same bytes
            archive.writestr(zipfile.ZipInfo(name), content)


def _read_members(path: Path) -> dict[str, bytes]:
    try:
        with open_archive(read_regular(path, _MAX_PACKED_BYTES)) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names) or not {MODEL_FILE} <= set(names) <= {MODEL_FILE, *_PARTS}:
                raise ValueError(f"it holds {', '.join(map(repr, names[:5])) or 'nothing'}")
            return {name: archive.read(name) for name in names}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except _DAMAGE as error:
        raise ModelError(
            f"{path} is not a packed model, or is damaged: {_first_line(error)}; give what `featcache pack` "
            "wrote for a model, or a model's folder"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def read_model(place: Path) -> ModelFacts:
    """Read and validate ``model.json``, and compare the model's other files with their hashes.

    Parameters
    ----------
    place : Path
        A model's folder, or a packed model.

    Models of version 0.1 have no hashes.

    Raises
    ------
    ModelError
        A file is missing, cannot be read, is damaged, or describes what cannot be a model.
    FormatError
        A newer version wrote it.
    """
    files = ModelFiles.at(place)
    path = files.path(MODEL_FILE)
    try:
        raw = dict(json.loads(files.read(MODEL_FILE)))
        check_format(raw.get("format"), MODEL_FORMAT, str(path))
        if files.members is not None:
            check_format(raw.get("packed"), PACKED_MODEL_FORMAT, str(place))
        if "sha256" in raw and raw != with_hash(raw):
            raise ValueError("it was changed since it was written")
        facts = _Facts.model_validate(raw)
        settings = BaseSettings(**facts.base.settings)
        spec = BaseSpec.from_json(facts.base.spec)
        _check_agreement(settings, spec)
    except ValidationError as error:
        raise ModelError(f"{path} is not a valid model: {_first_error(error)}; {files.advice}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{path} is not a valid model: {_first_line(error)}; {files.advice}") from None
    _check_hashes(files, facts)
    return ModelFacts(
        name=facts.name,
        classes=tuple(facts.classes),
        settings=settings,
        spec=spec,
        head=HeadFile(files, facts.head),
        scores=facts.scores,
        versions=facts.versions,
        cache=Path(facts.cache) if facts.cache else None,
        files=files,
        novelty=files.read(NOVELTY_FILE) if NOVELTY_FILE in facts.files else None,
        network=files.read(NETWORK_FILE) if NETWORK_FILE in facts.files else None,
        photos=_photos(files) if PHOTOS_FILE in facts.files else None,
    )


def _photos(files: ModelFiles) -> ModelPhotos:
    try:
        return ModelPhotos.from_bytes(files.read(PHOTOS_FILE))
    except ValueError as error:
        raise ModelError(f"{files.path(PHOTOS_FILE)} is damaged: {error}; {files.advice}") from None


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


def _check_hashes(files: ModelFiles, facts: _Facts) -> None:
    if files.members is not None and {MODEL_FILE, *facts.files} != set(files.members):
        raise ModelError(f"{files.place} does not hold the files that its {MODEL_FILE} lists; {files.advice}")
    for name, digest in facts.files.items():
        if _sha256(files.read(name)) != digest:
            raise ModelError(f"{files.path(name)} is damaged: its hash is wrong; {files.advice}")


def _read(path: Path, advice: str) -> bytes:
    try:
        return read_regular(path, _AT_MOST.get(path.name))
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; {advice}") from None
    except OSError as error:
        # without permission, or handles, it may be as whole as ever
        raise ModelError(f"{path} cannot be read: {error.strerror or os.strerror(errno.EIO)}") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
