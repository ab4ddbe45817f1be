"""Exports a model: writes it in another format, runs the file on photos, and keeps it if it says the same."""

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

from featcache.errors import ExportError, FeatcacheError, did_you_mean
from featcache.exporting.check import REQUIRED, REQUIRED_INT8, Answers, Comparison, compare
from featcache.exporting.formats import LABELS_FILE, QUANTIZE, WRITERS, Order
from featcache.exporting.network import whole_network
from featcache.exporting.photos import Labelled, Source, of_folder, of_run
from featcache.exporting.runtimes import RUNTIMES, Run, Runtime, run_in_batches
from featcache.files import folder_written_whole
from featcache.heads.probabilities import check_expressible
from featcache.model import Model, find_model
from featcache.reporter import SILENT, Reporter
from featcache.store.format import EXPORT_FORMAT, check_format
from featcache.store.shards import library_versions

FACTS_FILE = "export.json"


@dataclass(frozen=True)
class Export:
    """Result of an export that passed its check.

    Attributes
    ----------
    model : Path
        The model's folder.
    to, quantize : str
    folder : Path
        What was written, as a whole.
    file : Path
        The file that a runtime opens; for a SavedModel the folder.
    bytes : int
        Of all that the format itself consists of.
    runtime : str
        What ran the file, with its version.
    comparison : Comparison
    """

    model: Path
    to: str
    quantize: str
    folder: Path
    file: Path
    bytes: int
    runtime: str
    comparison: Comparison

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
            "check": self.comparison.to_json(),
        }


def export(
    model: str | os.PathLike[str],
    to: str,
    *,
    quantize: str = "none",
    output: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Export:
    """Write a model in another format, with its preprocessing inside, and compare both on photos.

    The file takes uint8 pixels (n, height, width, 3) in RGB and gives probabilities (n, classes). It is
    run by the runtime that it is meant for on 100 to 500 photos of the model's own recipe (all, if there
    are fewer). When it gives other labels than the model for more than 1% of them (5% with int8), nothing
    is kept, and an export that was there before stays.

    Parameters
    ----------
    model : path
        A model's folder, or a run's for its best head.
    to : {"keras", "saved_model", "tflite", "onnx", "openvino"}
    quantize : {"none", "float16", "int8"}, default "none"
        Of TensorFlow Lite: half-precision weights, or weights and activations of 8 bits.
    output : path, optional
        The folder to write, new or that of an earlier export; by default ``export/FORMAT`` in the model's.
    photos : path, optional
        A folder of photos to check with, where those of the recipe are no more.
    reporter : Reporter, optional
        Listens to the work.

    Returns
    -------
    Export

    Raises
    ------
    ExportError
        An unknown format, a runtime that is not installed, an output folder that holds something else, a
        network that cannot be converted, or one that answers differently.
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
    target = Path(output) if output is not None else folder / "export" / _variant(to, quantize)
    _refuse_foreign(target)
    source = of_folder(Path(photos), loaded) if photos is not None else of_run(folder, loaded)
    labelled = source.to_check(loaded)
    order = _order(loaded, folder.name, quantize, source)
    reporter.note(f"writing {to}, then comparing it with the model on {len(labelled.labels):,} photos")
    with folder_written_whole(target) as aside:
        with _blamed(f"{loaded.name} cannot be written as {to}"):
            file = WRITERS[to](order, aside)
        size = _size(aside)
        with _blamed(f"{runtime.name} cannot run what was written"):
            comparison = _compared(loaded, runtime.open(file), labelled, quantize, reporter)
        _refuse_different(comparison, to, runtime)
        result = Export(
            model=folder,
            to=to,
            quantize=quantize,
            folder=target,
            file=target / file.relative_to(aside),
            bytes=size,
            runtime=f"{runtime.name} {runtime.version}",
            comparison=comparison,
        )
        _write_facts(aside, result, loaded, source, order.labels)
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
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        check_format(facts.get("format"), EXPORT_FORMAT, str(folder / FACTS_FILE))
        return {FACTS_FILE, *facts["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _order(model: Model, name: str, quantize: str, source: Source) -> Order:
    sample = source.to_quantize(model) if quantize == "int8" else None
    return Order(whole_network(model), name, model.classes, quantize, sample)


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Name what could not be done, whatever a converter or a runtime raises."""
    try:
        yield
    except (FeatcacheError, OSError, MemoryError):
        raise
    except Exception as error:
        # compilers of five projects, each with exceptions of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ExportError(f"{what}: {reason}") from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _compared(model: Model, run: Run, photos: Labelled, quantize: str, reporter: Reporter) -> Comparison:
    heard = _counter(reporter, "checking", len(photos.pixels))
    exported = run_in_batches(run, photos.pixels, heard)
    required = REQUIRED_INT8 if quantize == "int8" else REQUIRED
    return compare(_answers(model, photos.pixels, reporter), exported, photos.labels, required)


def _answers(model: Model, pixels: NDArray[np.uint8], reporter: Reporter) -> Answers:
    """Ask the model itself, through the engine that runs it everywhere else."""
    base = model.base(len(pixels), reporter)
    step = base.settings.batch_size
    heard = _counter(reporter, "asking the model", len(pixels))
    found = []
    for start in range(0, len(pixels), step):
        found += model.predict_features(base.features(pixels[start : start + step]))
        heard(len(found))
    number = {name: place for place, name in enumerate(model.classes)}
    return Answers(
        np.array([[(one.probabilities or {})[name] for name in model.classes] for one in found]),
        np.array([number[str(one.label)] for one in found]),
    )


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


def _write_facts(folder: Path, result: Export, model: Model, source: Source, labels: str) -> None:
    """Write the class names and what a user of the file has to know."""
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
        },
        "output": {"name": "probabilities", "shape": [len(model.classes)], "dtype": "float32"},
        "base": model.spec.to_json(),
        "check": result.comparison.to_json() | {"runtime": result.runtime, "photos_of": source.name},
        "versions": library_versions(),
        "files": sorted(own),
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
