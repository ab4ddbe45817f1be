"""A loaded model in programs: kept, shared by threads, forked, pickled, and behind HTTP as documented."""

import contextlib
import io
import multiprocessing
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from featcache.bases import openvino as openvino_engine
from featcache.errors import DataError
from featcache.model import Model

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture
def model(trained):
    return Model.load(trained / "run" / "models" / "LogisticRegression")


@pytest.fixture(scope="module")
def files(trained):
    return sorted((trained / "photos").glob("*/*.png"))[:6]


@pytest.fixture
def compiled(monkeypatch):
    """The batch sizes for which a network was compiled."""
    sizes = []
    real = openvino_engine.OpenVINOEngine.__init__

    def init(engine, data, spec, batch_size, precision):
        sizes.append(batch_size)
        real(engine, data, spec, batch_size, precision)

    monkeypatch.setattr(openvino_engine.OpenVINOEngine, "__init__", init)
    return sizes


def close(some, others):
    """Whether predictions agree, whatever the batch size that they were computed in."""
    return all(
        one.label == other.label and one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        for one, other in zip(some, others, strict=True)
    )


# ---- what is given ---------------------------------------------------------------------------------------


def test_photos_in_memory_are_classified_as_their_files(model, files):
    expected = [replace(one, path="") for one in model.predict(files)]
    data = [file.read_bytes() for file in files]
    arrays = [np.asarray(Image.open(file)) for file in files]
    assert arrays[0].shape != (32, 32, 3)
    lists = [data, [io.BytesIO(one) for one in data], [Image.open(file) for file in files], arrays]
    for photos in (*lists, np.stack(arrays), (one for one in data)):
        assert list(model.predict(photos)) == expected
    for photos in lists:
        assert list(model.predict(photos[0])) == expected[:1]


def test_a_mixed_list_with_broken_photos_has_one_result_each(model, files):
    good = next(model.predict(files[0]))
    mixed = [files[0].read_bytes(), b"broken", files[0], None, np.zeros((4, 4), float), Image.open(files[0])]
    found = list(model.predict(mixed))
    assert [one.label for one in found] == [good.label, None, good.label, None, None, good.label]
    assert [one.path for one in found] == ["", "", str(files[0]), "", "", ""]
    assert [one.reason is None for one in found] == [True, False, True, False, False, True]


def test_one_array_of_floats_is_an_error(model):
    with pytest.raises(DataError, match=r"dtype float32 is no photo; give uint8.*\(255 \* array\)"):
        list(model.predict(np.zeros((64, 64, 3), np.float32)))


# ---- what is kept ----------------------------------------------------------------------------------------


def test_the_network_is_compiled_once_for_single_photos_and_once_for_batches(model, files, compiled):
    many = [files[0]] * 2 * model.settings.batch_size
    for photos in (files[0], files[:3], many, files[1], many):
        list(model.predict(photos))
    assert compiled == [1, model.settings.batch_size]


def test_prepare_compiles_before_the_first_photo(model, files, compiled):
    model.prepare()
    assert compiled == [1]
    next(model.predict(files[0]))
    assert compiled == [1]


def test_a_single_photo_starts_no_threads(model, files, monkeypatch):
    monkeypatch.setattr("featcache.featurize.ThreadPoolExecutor", None)
    assert next(model.predict(files[0])).label


def test_notes_go_to_the_reporter_of_the_call(model, files):
    class Reporter:
        def __init__(self):
            self.notes = []
            self.note = self.notes.append

        def advance(self, *_):
            pass

    first, second = Reporter(), Reporter()
    next(model.predict(files[0], first))
    next(model.predict(files[0], second))
    model.base(1, second).note("said")
    assert (first.notes, second.notes) == ([], ["said"])


@pytest.mark.parametrize("head", ["LogisticRegression", "GaussianNB", "linear"])
def test_threads_share_a_model_and_its_inference_requests(trained, files, compiled, head):
    model = Model.load(trained / "run" / "models" / head)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: next(model.predict(file)), files * 10))
    assert compiled == [1]
    assert found[: len(files)] * 10 == found
    assert close(found[: len(files)], model.predict(files))
    engine = model.base(1).engine
    made = [engine._requests.get_nowait() for _ in range(engine._requests.qsize())]
    assert 0 < sum(one is not None for one in made) <= len(made) == model.base(1).parallel


@pytest.mark.parametrize("head", ["LogisticRegression", "GaussianNB", "linear"])
def test_a_model_is_pickled_with_and_without_use(trained, files, head):
    model = Model.load(trained / "run" / "models" / head)
    fresh = pickle.dumps(model)
    expected = list(model.predict(files))
    for data in (fresh, pickle.dumps(model)):
        assert list(pickle.loads(data).predict(files)) == expected
    assert list(model.predict(files)) == expected


def label_of(model, file):
    return next(model.predict(file)).label


def test_spawned_processes_take_a_used_model(model, files):
    expected = [label_of(model, file) for file in files]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.starmap(label_of, [(model, file) for file in files]) == expected


# ---- fork ------------------------------------------------------------------------------------------------

FORK = """
import os, sys, threading
import featcache as fc
from featcache.errors import FeatcacheError
model = fc.Model.load(sys.argv[1])
if sys.argv[3] != "auto":
    model.settings = model.settings.model_copy(update={"engine": sys.argv[3]})
expected = next(model.predict(sys.argv[2]))
busy = threading.Thread(target=lambda: [next(model.predict(sys.argv[2])) for _ in range(200)])
busy.start()
child = os.fork()
if child == 0:
    try:
        for _ in range(3):
            assert next(model.predict(sys.argv[2])) == expected
        print("child predicts", flush=True)
    except FeatcacheError as error:
        print(error, flush=True)
    sys.exit(0)  # as gunicorn's workers end: the interpreter is torn down
status = os.waitpid(child, 0)[1]
busy.join()
assert next(model.predict(sys.argv[2])) == expected
print("child ended with", status)
"""


def forked(folder, file, engine):
    command = [sys.executable, "-c", FORK, str(folder), str(file), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@FORKS
def test_a_forked_process_predicts_and_ends(trained, files):
    assert forked(trained / "run", files[0], "auto") == ["child predicts", "child ended with 0"]


@FORKS
def test_after_a_fork_tensorflow_is_refused_and_does_not_hang(trained, files):
    said, ended = forked(trained / "run", files[0], "tensorflow")
    assert "TensorFlow does not work in a process that was forked" in said
    assert "load the model in the new process" in said
    assert ended == "child ended with 0"


# ---- the program of the documentation --------------------------------------------------------------------


def service_program():
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    return program


def test_the_service_is_short():
    assert len(service_program().splitlines()) <= 25


@contextlib.contextmanager
def running_service(folder):
    """Run uvicorn as the documentation does and give the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.close()


def test_the_service_of_the_documentation_answers_many_requests_at_once(trained, model, files, tmp_path):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    model.pack(tmp_path / "pets.zip")
    (tmp_path / "service.py").write_text(service_program(), encoding="utf-8")
    expected = [one.to_json() | {"path": ""} for one in model.predict(files)]
    broken = {"empty": b"", "text": b"no photo", "cut": files[0].read_bytes()[:60]}
    asked = [
        *((file.read_bytes(), place) for place, file in enumerate(files)),
        *((d, None) for d in broken.values()),
    ]
    asked = (asked * 23)[:200]
    with running_service(tmp_path) as address, httpx.Client(base_url=address, timeout=120) as client:

        def ask(one):
            return client.post("/predict", files={"photo": ("photo.jpg", one[0])})

        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(ask, asked))
    assert len(answers) == 200
    for answer, (_, place) in zip(answers, asked, strict=True):
        if place is None:
            assert answer.status_code == 422
            assert re.search("empty|not an image|truncated|damaged", answer.json()["detail"])
        else:
            assert (answer.status_code, answer.json()["label"]) == (200, expected[place]["label"])
            assert answer.json()["probabilities"] == pytest.approx(expected[place]["probabilities"], abs=1e-6)
