"""A trained model as one thing: how photos are decoded, the base, the head and the classes.

Heads are imported where one is loaded or saved, so that looking at a model's facts needs no scikit-learn.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import Base
from featcache.bases.contract import NETWORK_FILE, Layered, OneNetwork, SpecStore
from featcache.bases.needs import with_weights
from featcache.bases.spec import BaseSpec, files_of
from featcache.errors import BaseNetworkError, ModelError
from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import Novelty
from featcache.featurize import Photo, featurize, featurize_pixels
from featcache.files import write_bytes_whole
from featcache.images.memory import is_array
from featcache.inputs import checked_array, photos_of
from featcache.model_files import HeadFile, ModelFacts, ModelFiles, read_model, write_model, write_packed
from featcache.model_photos import PHOTOS_FILE, ModelPhotos
from featcache.novelty_file import NOVELTY_FILE, novelty_bytes, read_novelty
from featcache.prediction import Answers, Asked, Prediction
from featcache.recipe import BaseSettings, default_cache
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import HEADS_FILE, MODEL_FILE
from featcache.run.results import read_results
from featcache.store.base_store import Store
from featcache.store.shards import library_versions

__all__ = ["Model", "Prediction", "find_model"]


class Model:
    """A trained classifier of photos.

    It may be used by several threads at once, in forked processes (with OpenVINO), and be pickled; what was
    compiled is kept from call to call, and not pickled. See ``docs/serving.md``.

    Parameters
    ----------
    name : str
        The head's name in its recipe.
    classes : tuple of str
    settings : BaseSettings
        How the base is built and photos are decoded.
    spec : BaseSpec
        What the base was when the head was trained.
    head : classifier or HeadFile
        On features (n, ...), with the labels 0 … len(classes) - 1; or the file that it is in.
    scores : dict
        On validation and, for the best head of a run, on test.
    cache : Path, optional
        The store that keeps the base's converted network; without it the base is built anew.
    photos : ModelPhotos, optional
        The photos that it was trained on and chosen on; None where that is not known.
    novelty : Novelty, optional
        What tells photos of the classes from others.
    conformal : ConformalSets, optional
        What sets of classes are made from.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        settings: BaseSettings,
        spec: BaseSpec,
        head: Any,
        scores: dict[str, Any],
        cache: Path | None = None,
        photos: ModelPhotos | None = None,
        novelty: Novelty | None = None,
        conformal: ConformalSets | None = None,
    ) -> None:
        self.photos, self.novelty, self.conformal = photos, novelty, conformal
        self.name, self.classes, self.settings, self.spec, self.scores = name, classes, settings, spec, scores
        self.cache = default_cache() if cache is None else cache
        self._head = head
        self._own_cache = self.cache
        self._files: ModelFiles | None = None
        self._network: bytes | None = None
        self._bases: dict[int, Base] = {}  # by batch size

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bases": {}}

    @cached_property
    def head(self) -> Any:
        """The classifier; of a model that was loaded, read when it is first asked for."""
        return self._head.load() if isinstance(self._head, HeadFile) else self._head

    @cached_property
    def _classifier(self) -> Any:
        """What predicts: the head, or of a linear one what needs no scikit-learn."""
        if not isinstance(self._head, HeadFile):
            return self._head
        return self._head.load_linear() or self.head

    @property
    def has_probabilities(self) -> bool:
        """Whether the head gives probabilities of the classes."""
        return hasattr(self._classifier, "predict_proba")

    def save(self, folder: Path) -> None:
        """Write ``model.json`` and the head into `folder`, as a whole; of a packed model also its base.

        Raises
        ------
        StoreError
            No room or no permission.
        ModelError
            The head is of a kind that cannot be saved.
        """
        from featcache.heads.persistence import save_head

        settings = self.settings.model_dump(mode="json")
        for key, path in files_of(self.settings).items():
            settings[key] = str(path.resolve())
        facts = {
            "name": self.name,
            "classes": list(self.classes),
            "base": {"settings": settings, "spec": self.spec.to_json()},
            "cache": str(self.cache.resolve()),
            "scores": self.scores,
            "versions": library_versions(),
        }

        def save_parts(aside: Path) -> str:
            if self._network is not None:
                write_bytes_whole(aside / NETWORK_FILE, self._network)
            if self.photos is not None:
                write_bytes_whole(aside / PHOTOS_FILE, self.photos.to_bytes())
            if self.novelty is not None or self.conformal is not None:
                write_bytes_whole(aside / NOVELTY_FILE, novelty_bytes(self.novelty, self.conformal))
            return save_head(self.head, aside)

        write_model(folder, facts, save_parts)

    def pack(self, file: str | os.PathLike[str]) -> None:
        """Write the model with its converted base into one file, which `load` takes on any machine.

        There it needs no store, no weights and no TensorFlow (unless the head is a model of Keras).

        Parameters
        ----------
        file : path
            It is written whole or not at all.

        Raises
        ------
        ModelError
            The base is not here and cannot be built, or OpenVINO cannot run it.
        StoreError
            No room or no permission, or `file` is not a regular file.
        """
        with ExitStack() as stack:
            files = self._files
            if files is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / self.name
                self.save(folder)
                files = ModelFiles(folder)
            write_packed(Path(file), files, self._network or self._converted_network())

    def _converted_network(self) -> bytes:
        settings = self.settings.model_copy(update={"engine": "openvino"})
        try:
            return Base(settings, self._spec_store(), spec=self.spec).converted_network()
        except BaseNetworkError as error:
            raise ModelError(f"{self.name} cannot be packed: {error}") from None

    @classmethod
    def load(
        cls,
        place: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> Model:
        """Load a model's folder, the best model of a run's folder, or a packed model.

        What the files say decides nothing about where files are written: the store that they name is only
        read.

        Parameters
        ----------
        place : path
        cache : path, optional
            The store that is searched first for the converted base, and where it is kept when it has to be
            converted again; by default ``$FEATCACHE_CACHE`` or the user's cache. The one that the model was
            trained with comes second.
        weights : path, optional
            The weights' file (or the ``.keras`` file of the base), if it is elsewhere now. It is needed only
            where no store has the converted base, and must hold what the head was trained on.

        Raises
        ------
        ModelError
            There is no whole model, or a file in it is damaged or not to be trusted.
        FormatError
            A newer version wrote it.
        WeightsError
            There is no file `weights`.
        """
        path = find_model(Path(place))
        facts = read_model(path)
        settings = facts.settings if weights is None else with_weights(facts.settings, os.fspath(weights))
        if facts.network is not None:
            settings = settings.model_copy(update={"engine": "auto"})
        known = facts.name, facts.classes, settings, facts.spec, facts.head, facts.scores
        model = cls(*known, facts.cache, photos=facts.photos)
        model._own_cache = default_cache() if cache is None else Path(cache)
        model._files, model._network = facts.files, facts.network
        model._read_novelty(facts)
        model._check_head(path)
        return model

    def _read_novelty(self, facts: ModelFacts) -> None:
        if facts.novelty is not None:
            self.novelty, self.conformal = read_novelty(
                facts.novelty,
                facts.files.path(NOVELTY_FILE),
                len(self.classes),
                self.spec.feature_shape[-1],
                facts.files.advice,
            )

    def _check_head(self, path: Path) -> None:
        """Refuse a head that knows other classes or takes other features than the model."""
        known = self._classifier.classes_
        if not np.array_equal(known, np.arange(len(self.classes))):
            raise ModelError(
                f"{path}: the model has {len(self.classes)} classes, but the head knows {len(known)} labels, "
                f"{known[:5].tolist()}…; train the head again"
            )
        try:
            self._classifier.predict(np.zeros((1, *self.spec.feature_shape), np.float32))
        except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"{path}: the head does not take this base's features: {reason}") from None

    def predict(
        self,
        photos: Any,
        reporter: Reporter = SILENT,
        *,
        reject: float | None = None,
        set_size: float | None = None,
    ) -> Iterator[Prediction]:
        """Classify photos in batches; one result per photo, in order.

        Parameters
        ----------
        photos : path, photo in memory, or iterable of these; or array of four axes
            A folder stands for all photos below it. In memory a photo is bytes (bytearray, memoryview), a
            file object that gives bytes (it is read from its beginning), an image of Pillow's, or an array:
            uint8 from 0 to 255 of shape (height, width), (height, width, 1), RGB (height, width, 3) or RGBA
            (height, width, 4). Photos of any size are resized as in training. An array of four axes holds
            photos of one size; it may also be a memory map or an h5py dataset, of which a few batches are
            read at a time.
        reporter : Reporter, optional
        reject : float, optional
            Photos whose novelty (a p-value) is below it are none of the classes and have no label. About this
            share of photos of known classes is rejected as well.
        set_size : float, optional
            Also give the set of classes that holds the true one, of all photos of known classes but this
            share.

        Yields
        ------
        Prediction
            What cannot be decoded, or is no photo, has a reason and no label.

        Raises
        ------
        DataError
            A path does not exist, a folder is empty, or `photos` itself is an array of another shape or
            dtype, or none of these.
        ModelError
            The base is not here, or no longer the one that the head was trained on; or `reject` or `set_size`
            is not between 0 and 1, too small for the photos that the model knows, or cannot be answered by
            this model.
        """
        answers = self._answers(reject, set_size)
        for sentence in answers.notes:
            reporter.note(sentence)
        if is_array(photos):
            photos = checked_array(photos)
            batches = _of_pixels(photos, self.base(len(photos), reporter), answers)
        else:
            photos = photos_of(photos)
            batches = _of_files(photos, self.base(len(photos), reporter), answers)
        done = 0
        reporter.advance("predicting", 0, len(photos))
        for batch in batches:
            yield from batch
            done += len(batch)
            reporter.advance("predicting", done, len(photos))

    def prepare(self) -> None:
        """Load and compile the base for single photos now, rather than with the first one.

        Raises
        ------
        ModelError
            The base is not here, or no longer the one that the head was trained on.
        """
        self.base(1).prepare()

    def base(self, photos: int, reporter: Reporter = SILENT) -> Base:
        """Return the base that the head was trained on, compiled for single photos or for whole batches.

        Parameters
        ----------
        photos : int
            How many there are. Batches are filled up, so fewer than ``settings.batch_size`` go one by one.
        reporter : Reporter, optional
        """
        size = self.settings.batch_size if photos >= self.settings.batch_size else 1
        if size not in self._bases:
            settings = self.settings.model_copy(update={"batch_size": size})
            # of two threads that come here at once, both get the base of one
            self._bases.setdefault(size, Base(settings, self._spec_store(), spec=self.spec))
        base = self._bases[size]
        base.note = reporter.note
        return base

    def _spec_store(self) -> SpecStore:
        """Return where the converted network is found; a store that a file names is never written."""
        if self._network is not None:
            return OneNetwork(self.spec, self._network)
        return Layered(Store(self._own_cache), Store(self.cache))

    def predict_features(
        self, features: NDArray[Any], *, reject: float | None = None, set_size: float | None = None
    ) -> list[Prediction]:
        """Classify features (n, ...) that this model's base gave, as `predict`; paths are left empty."""
        return self._answers(reject, set_size).of([""] * len(features), features)

    def probabilities(self, features: NDArray[Any]) -> NDArray[Any] | None:
        """Return the classes' probabilities (n, k) for features (n, ...); None for heads without any."""
        return self._answers().probabilities(features)

    def _answers(self, reject: float | None = None, set_size: float | None = None) -> Answers:
        asked = Asked(reject, set_size)
        asked.check(self.name, self.novelty, self.conformal)
        return Answers(self.classes, self._classifier, self.novelty, self.conformal, asked)


def _of_files(photos: Sequence[Photo], base: Base, answers: Answers) -> Iterator[list[Prediction]]:
    for batch in featurize(photos, base):
        found = {id(photo): Prediction(photo.path, None, reason=why) for photo, why in batch.failed}
        if batch.features is not None:
            decoded = answers.of([photo.path for photo in batch.photos], batch.features)
            found |= {id(photo): one for photo, one in zip(batch.photos, decoded, strict=True)}
        yield [found[id(photo)] for photo in batch.asked]


def _of_pixels(pixels: Any, base: Base, answers: Answers) -> Iterator[list[Prediction]]:
    for features in featurize_pixels(pixels, base):
        yield answers.of([""] * len(features), features)


def find_model(folder: Path) -> Path:
    """Return `folder` if it is a model or a file, or the best model of the run that it is.

    Raises
    ------
    ModelError
        It is neither.
    """
    if folder.is_file() or (folder / MODEL_FILE).is_file():
        return folder
    if (folder / HEADS_FILE).is_file():
        best = _best_model(folder)
        if (best / MODEL_FILE).is_file():
            return best
    raise ModelError(
        f"{folder} is no model; give a folder like runs/NAME/models/HEAD, runs/NAME for its best head, or a "
        "packed model"
    )


def _best_model(run: Path) -> Path:
    notes: list[str] = []
    results = read_results(run, notes.append)
    if results is None:
        reason = "; ".join(notes) or f"{run / HEADS_FILE} lists no heads"
        raise ModelError(f"{reason}; train the heads again, or give a model's own folder")
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return results.best.model
