"""Exports a model: writes it in another format, runs the file on photos, and keeps it if the labels agree.

The exported network computes in f32, so it is compared with the model in f32. What else a user may see is
stated beside that: the file loaded without options, where its runtime then computes in bf16, and the model in
the precision that its head was trained in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import Base
from featcache.errors import ExportError, FeatcacheError, did_you_mean
from featcache.evaluation.novelty import DEFAULT_LEVEL
from featcache.exporting.check import (
    REQUIRED,
    REQUIRED_INT8,
    Comparison,
    NoveltyComparison,
    Predictions,
    compare,
    compare_novelty,
)
from featcache.exporting.formats import LABELS_FILE, QUANTIZE, WRITERS, Exportable
from featcache.exporting.network import whole_network
from featcache.exporting.photos import ExportPhotos, Labelled, of_folder, of_run
from featcache.exporting.runtimes import NOVELTY, RUNTIMES, Run, Runtime, run_in_batches
from featcache.files import check_folder_target, folder_written_whole, read_regular
from featcache.heads.probabilities import check_expressible
from featcache.model import Model, find_model
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import export_folder
from featcache.store.format import EXPORT_FORMAT, check_format
from featcache.store.shards import library_versions

FACTS_FILE = "export.json"
_MAX_FACTS = 16 << 20


@dataclass(frozen=True)
class Export:
    """Result of an export that passed its check.

    Attributes
    ----------
    model : Path
        The model's folder.
    to, quantize : str
    folder : Path
        The folder that was written.
    file : Path
        The file that a runtime opens; for a SavedModel the folder.
    bytes : int
        Size of the files of the format itself.
    runtime : str
        What ran the file, with its version.
    comparison : Comparison
        Of the file, computing in f32, with the model in f32.
    by_default : Comparison or None
        Of the file loaded without options with the model in f32, where that may compute in another precision.
    as_trained : Comparison or None
        Of the file in f32 with the model in its own precision and dtype, where these are not f32 and float32.
    novelty : NoveltyComparison or None
        Of the file, computing in f32, with the model in f32, where it has the output ``novelty``.
    """

    model: Path
    to: str
    quantize: str
    folder: Path
    file: Path
    bytes: int
    runtime: str
    comparison: Comparison
    by_default: Comparison | None = None
    as_trained: Comparison | None = None
    novelty: NoveltyComparison | None = None

    @property
    def check(self) -> dict[str, Any]:
        """What was compared, as JSON-ready data."""
        further = {"by_default": self.by_default, "as_trained": self.as_trained, "novelty": self.novelty}
        stated = {name: one and one.to_json() for name, one in further.items()}
        return {**self.comparison.to_json(), "precision": "f32", **stated}

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "model": str(self.model),
            "to": self.to,
            "quantize": self.quantize,
            "folder": str(self.folder),
            "file": str(self.file),
            "bytes": self.bytes,
            "runtime": self.runtime,
            "check": self.check,
        }


def export(
    model: str | os.PathLike[str],
    to: str,
    *,
    quantize: str = "none",
    output: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    novelty: bool = False,
    reporter: Reporter = SILENT,
) -> Export:
    """Write a model in another format, with its preprocessing inside, and compare both on photos.

    The file takes uint8 pixels (n, height, width, 3) in RGB and gives probabilities (n, classes). It is
    run by the runtime that it is meant for on 100 to 500 photos of the model's own recipe (all, if there
    are fewer). When more than 1% of its labels (5% with int8) differ from those of the model in f32,
    nothing is kept, and an earlier export stays.

    Parameters
    ----------
    model : path
        A model's folder, or a run's for its best head.
    to : {"keras", "saved_model", "tflite", "onnx", "openvino"}
    quantize : {"none", "float16", "int8"}, default "none"
        For TensorFlow Lite: half-precision weights, or weights and activations of 8 bits.
    output : path, optional
        The folder to write, new or that of an earlier export; by default
        ``RUN/exports/HEAD/FORMAT``.
    photos : path, optional
        A folder of photos to check with, where those of the recipe are gone.
    novelty : bool, default False
        Write a second output ``novelty``, the p-values (n,); not for TensorFlow Lite.
    reporter : Reporter, optional
        Listens to the work.

    Returns
    -------
    Export

    Raises
    ------
    ExportError
        An unknown format, a runtime that is not installed, an output folder that holds something else, a
        network that cannot be converted, or one whose labels differ.
    ModelError
        The head cannot become layers of a network, or the base is no longer the one it was trained on.
    DataError
        There are no photos to check with.
    FeatcacheError
        The model cannot be loaded, or the base cannot be built.
    """
    runtime = _runtime(to, quantize)
    folder = find_model(Path(model))
    loaded = Model.load(folder)
    check_expressible(loaded.head)
    if novelty:
        _check_novelty(loaded, to)
    target = Path(output) if output is not None else export_folder(folder, _variant(to, quantize))
    _refuse_foreign(target)
    check_folder_target(target)
    source = of_folder(Path(photos), loaded) if photos is not None else of_run(folder, loaded)
    labelled = source.to_check(loaded)
    network = _exportable(loaded, folder.name, quantize, source, novelty)
    reporter.note(f"writing {to}, then comparing it with the model in f32 on {len(labelled.labels):,} photos")
    with folder_written_whole(target) as aside:
        with _explained(f"{loaded.name} cannot be written as {to}"):
            file = WRITERS[to](network, aside)
        size = _size(aside)
        with _explained(f"{runtime.name} cannot run what was written"):
            exported = _run(runtime.open(file), labelled, reporter)
            rejects = _run(runtime.open(file, NOVELTY), labelled, reporter) if novelty else None
            default = runtime.open_default and _run(runtime.open_default(file), labelled, reporter)
        exact, own = _predictions(loaded, labelled.pixels, reporter)
        required = REQUIRED_INT8 if quantize == "int8" else REQUIRED
        with _explained(f"{runtime.name} cannot run what was written"):
            comparison = compare(exact, exported, labelled.labels, required)
            of_novelty = compare_novelty(exact.novelty, rejects)
        _refuse_different(comparison, to, runtime)
        _refuse_other_novelty(of_novelty, to, runtime)
        result = Export(
            model=folder,
            to=to,
            quantize=quantize,
            folder=target,
            file=target / file.relative_to(aside),
            bytes=size,
            runtime=f"{runtime.name} {runtime.version}",
            comparison=comparison,
            by_default=None if default is None else compare(exact, default, labelled.labels, required),
            as_trained=None if own is None else compare(own, exported, labelled.labels, required),
            novelty=of_novelty,
        )
        _write_facts(aside, result, loaded, source, network.labels)
    return result


def _runtime(to: str, quantize: str) -> Runtime:
    if to not in RUNTIMES:
        raise ExportError(
            f"no format is named {to!r}; there is {', '.join(RUNTIMES)}.{did_you_mean(to, RUNTIMES)}"
        )
    if quantize not in QUANTIZE:
        raise ExportError(
            f"quantize is {quantize!r}; it takes {', '.join(QUANTIZE)}.{did_you_mean(quantize, QUANTIZE)}"
        )
    if quantize != "none" and to != "tflite":
        raise ExportError(f"--quantize {quantize} goes with --to tflite only, not with {to}")
    RUNTIMES[to].require(to)
    return RUNTIMES[to]


def _check_novelty(model: Model, to: str) -> None:
    if to == "tflite":
        raise ExportError(
            "--novelty goes with --to keras, saved_model, onnx or openvino: the interpreters of TensorFlow "
            "Lite list outputs by number, and int8 is too coarse for distances"
        )
    if model.novelty is None:
        raise ExportError(
            f"--novelty: {model.name!r} has no novelty score: it was trained by an earlier version of "
            "featcache, or on one photo of each class; train the head again"
        )


def _variant(to: str, quantize: str) -> str:
    return to if quantize == "none" else f"{to}-{quantize}"


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but an earlier export."""
    if not folder.exists():
        return
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not folder.is_dir() or found - _known_files(folder):
        raise ExportError(
            f"{folder} is there already and holds more than an earlier export; choose another folder with -o"
        )


def _known_files(folder: Path) -> set[str]:
    try:
        facts = json.loads(read_regular(folder / FACTS_FILE, _MAX_FACTS))
        check_format(facts.get("format"), EXPORT_FORMAT, str(folder / FACTS_FILE))
        return {FACTS_FILE, *facts["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _exportable(
    model: Model, name: str, quantize: str, source: ExportPhotos, novelty: bool = False
) -> Exportable:
    sample = source.to_quantize(model) if quantize == "int8" else None
    network = whole_network(model, model.novelty) if novelty else whole_network(model)
    return Exportable(network, name, model.classes, quantize, sample)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever a converter or a runtime raises into an ExportError that begins with `what`."""
    try:
        yield
    except (FeatcacheError, OSError, MemoryError):
        raise
    except Exception as error:
        # the converters of five projects raise exceptions of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ExportError(f"{what}: {reason}") from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _run(run: Run, photos: Labelled, reporter: Reporter) -> NDArray[Any]:
    return run_in_batches(run, photos.pixels, _counter(reporter, "checking", len(photos.pixels)))


def _predictions(
    model: Model, pixels: NDArray[np.uint8], reporter: Reporter
) -> tuple[Predictions, Predictions | None]:
    """Return the model's predictions in f32 and, where that is another, in its own precision and dtype."""
    base = model.base(len(pixels), reporter)
    exact = _predictions_on(model, base, base.f32_features, pixels, reporter)
    if (model.spec.precision, model.spec.dtype) == ("f32", "float32"):
        return exact, None
    return exact, _predictions_on(model, base, base.features, pixels, reporter)


def _predictions_on(
    model: Model,
    base: Base,
    features: Callable[[NDArray[np.uint8]], NDArray[Any]],
    pixels: NDArray[np.uint8],
    reporter: Reporter,
) -> Predictions:
    step = base.settings.batch_size
    progress = _counter(reporter, "predicting", len(pixels))
    probabilities, labels, p_values = [], [], []
    for start in range(0, len(pixels), step):
        X = features(pixels[start : start + step])
        probabilities.append(model.head.predict_proba(X))
        labels.append(model.head.predict(X))
        if model.novelty is not None:
            p_values.append(model.novelty.p_values(X))
        progress(min(start + step, len(pixels)))
    novelty = np.concatenate(p_values) if p_values else None
    return Predictions(np.concatenate(probabilities), np.concatenate(labels), novelty)


def _counter(reporter: Reporter, stage: str, total: int) -> Callable[[int], None]:
    reporter.advance(stage, 0, total)
    return lambda done: reporter.advance(stage, done, total)


def _refuse_different(comparison: Comparison, to: str, runtime: Runtime) -> None:
    if comparison.passed:
        return
    raise ExportError(
        f"the {to} file, run by {runtime.name}, gives the model's label for {comparison.equal_labels:.1%} of "
        f"{comparison.photos:,} photos, and {comparison.required:.0%} are required (largest difference of a "
        f"probability: {comparison.largest_difference:.3g}); nothing was kept"
    )


def _refuse_other_novelty(comparison: NoveltyComparison | None, to: str, runtime: Runtime) -> None:
    if comparison is None or comparison.passed:
        return
    raise ExportError(
        f"the {to} file, run by {runtime.name}, rejects other photos than the model: "
        f"{comparison.equally_rejected:.1%} are rejected alike at {DEFAULT_LEVEL}, and {REQUIRED:.0%} are "
        f"required (largest difference of a p-value: {comparison.largest_difference:.3g}); nothing was kept"
    )


def _write_facts(folder: Path, result: Export, model: Model, source: ExportPhotos, labels: str) -> None:
    """Write ``labels.txt`` and ``export.json``."""
    (folder / LABELS_FILE).write_text(labels, encoding="utf-8")
    height, width = model.settings.image_size
    own = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    facts = {
        "format": EXPORT_FORMAT,
        "name": model.name,
        "to": result.to,
        "quantize": result.quantize,
        "file": result.file.name if result.file != result.folder else ".",
        "bytes": result.bytes,
        "classes": list(model.classes),
        "input": {
            "name": "pixels",
            "shape": [height, width, 3],
            "dtype": "uint8",
            "channels": "RGB",
            "resize": model.settings.resize,
            "interpolation": model.settings.interpolation,
            "range": model.settings.range,
            "color_profile": model.settings.color_profile,
        },
        "output": {"name": "probabilities", "shape": [len(model.classes)], "dtype": "float32"},
        "novelty": result.novelty and {"name": NOVELTY, "shape": [], "dtype": "float32"},
        "base": model.spec.to_json(),
        "check": result.check | {"runtime": result.runtime, "photos_of": source.name},
        "versions": library_versions(),
        "files": sorted(own),
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
