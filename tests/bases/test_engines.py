"""The engines: OpenVINO gives TensorFlow's numbers, and which of them runs, in which precision."""

import os
import struct
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from featcache import processor
from featcache.bases.base import Base, stored
from featcache.bases.openvino import OpenVINOEngine, convert
from featcache.bases.sources import build_network
from featcache.bases.spec import allowed_precisions, check_settings, stored_dtype
from featcache.bases.tensorflow import TensorFlowEngine
from featcache.errors import BaseNetworkError, FeaturesError
from featcache.recipe import BaseSettings
from featcache.store.base_store import Store

SMALL = [("MobileNetV2", 64), ("VGG16", 48), ("MobileNetV3Small", 64)]
MANY = [
    "VGG16",
    "VGG19",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "ResNet50",
    "InceptionV3",
    "EfficientNetB0",
    "DenseNet121",
    "ConvNeXtTiny",
    "hub:resnet_18_imagenet",
]
BATCH = 4


def pixels(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


# ---- numbers ---------------------------------------------------------------------------------------------


@pytest.fixture(
    scope="module",
    params=[*SMALL, *(pytest.param((name, 96), marks=pytest.mark.slow) for name in MANY)],
    ids=lambda given: f"{given[0].removeprefix('hub:')}-{given[1]}",
)
def both(request):
    """Side of the photos, and one base as both engines run it."""
    name, size = request.param
    arguments = {"alpha": 0.35} if name == "MobileNetV2" else {}
    network = build_network(
        BaseSettings(name=name, arguments=arguments, weights="random", image_size=size, pooling="none")
    )
    return (
        size,
        TensorFlowEngine(network, BATCH),
        OpenVINOEngine(convert(network), network.spec, BATCH, "f32"),
    )


def test_openvino_gives_tensorflows_features(both, record_property):
    size, tensorflow, openvino = both
    x = pixels(BATCH, size)
    x[-1] = 0  # what short batches are filled up with
    expected, got = tensorflow(x), openvino(x)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype == np.float32
    apart = [np.linalg.norm(one - other) for one, other in zip(got, expected, strict=True)]
    share = [a / max(np.linalg.norm(other), 1e-30) for a, other in zip(apart, expected, strict=True)]
    record_property("apart", f"{max(share):.1e}")
    assert max(share) <= 1e-4


@pytest.mark.parametrize("which", [1, 2], ids=["tensorflow", "openvino"])
def test_a_rows_features_depend_on_nothing_else_in_its_batch(both, which):
    size, engine = both[0], both[which]
    x, others = pixels(BATCH, size), pixels(BATCH, size, seed=1)
    whole = engine(x)
    for count in range(1, BATCH):
        assert np.array_equal(engine(x[:count]), whole[:count])
    assert np.array_equal(engine(np.ascontiguousarray(x[::-1]))[::-1], whole)
    for place in range(BATCH):
        mixed = others.copy()
        mixed[place] = x[0]
        assert np.array_equal(engine(mixed)[place], whole[0])


@pytest.mark.parametrize("which", [1, 2], ids=["tensorflow", "openvino"])
def test_threads_do_not_get_into_each_others_numbers(both, which):
    size, engine = both[0], both[which]
    inputs = [pixels(BATCH, size, seed) for seed in range(3)]
    alone = [engine(x) for x in inputs]
    wrong = []

    def run(number):
        for _ in range(5):
            if not np.array_equal(engine(inputs[number]), alone[number]):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- what is kept in the store ---------------------------------------------------------------------------

TINY = {
    "name": "MobileNetV2",
    "arguments": {"alpha": 0.35},
    "weights": "random",
    "image_size": 32,
    "batch_size": BATCH,
}
X = pixels(3, 32)


@pytest.fixture(scope="module")
def built():
    """The tiny base in Keras and converted: made once, it takes seconds."""
    network = build_network(BaseSettings(**TINY))
    return network, convert(network)


@pytest.fixture
def builds(built, monkeypatch):
    """Have the tiny base at hand where it would be built; the list grows with every building."""
    network, data = built
    done = []

    def build(settings):
        done.append(settings)
        return network

    monkeypatch.setattr("featcache.bases.sources.build_network", build)
    monkeypatch.setattr("featcache.bases.openvino.convert", lambda network: data)
    return done


@pytest.fixture
def bf16(monkeypatch):
    """Return a function that sets whether the processor has bf16."""

    def has(answer):
        monkeypatch.setattr(processor, "has_bf16", lambda: answer)

    has(False)
    return has


def quiet(note):
    pytest.fail(f"nothing should be said: {note}")


def test_a_second_base_loads_the_converted_network_and_builds_nothing(tmp_path, builds):
    store = Store(tmp_path)
    first = Base(BaseSettings(**TINY), store, quiet)
    features = first.features(X)
    assert len(builds) == 1
    again = Base(BaseSettings(**TINY), store, quiet)
    assert np.array_equal(again.features(X), features)
    assert again.engine.name == "openvino"
    assert again.spec == first.spec
    assert len(builds) == 1


def test_a_second_process_runs_without_tensorflow(tmp_path, builds):
    features = Base(BaseSettings(**TINY), Store(tmp_path)).features(X)
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy as np; from pathlib import Path; from featcache.bases.base import Base; "
        "from featcache.recipe import BaseSettings; from featcache.store.base_store import Store; "
        f"folder = Path(sys.argv[1]); base = Base(BaseSettings(**{TINY!r}), Store(folder)); "
        "np.save(folder / 'features.npy', base.features(np.load(folder / 'x.npy'))); "
        "sys.exit(bool({'tensorflow', 'keras', 'keras_hub'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=120)
    assert np.array_equal(np.load(tmp_path / "features.npy"), features)


def test_a_model_of_an_earlier_decoder_keeps_its_network(builds, built):
    spec = replace(built[0].spec, decoder=1)
    network = Base(BaseSettings(**TINY), spec=spec).keras_network()
    assert network.spec == spec


def test_a_store_that_cannot_be_written_only_costs_time(tmp_path, builds):
    (tmp_path / "file").write_text("no folder can be made here")
    said = []
    base = Base(BaseSettings(**TINY), Store(tmp_path / "file" / "cache"), said.append)
    assert base.features(X).shape == (3, 1280)
    assert "built again next time" in said[0]


def flipped(data, at, bit=0x40):
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def last_entry(data):
    """Where the archive's directory tells of its last member."""
    return data.rfind(b"PK\x01\x02")


DAMAGES = {
    "nothing left": lambda data: b"",
    "cut in the middle": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-1],
    "other bytes": lambda data: os.urandom(5000),
    "an archive of nothing": lambda data: b"PK\x05\x06" + bytes(18),
    "flipped in the description": lambda data: flipped(data, 2000),
    "flipped in the weights": lambda data: flipped(data, len(data) // 2),
    "flipped in a name": lambda data: flipped(data, last_entry(data) + 46, 0x01),
    "flipped in the compression": lambda data: flipped(data, last_entry(data) + 10, 0x08),
    "flipped in an offset": lambda data: flipped(data, last_entry(data) + 45),
    "flipped in the directory's place": lambda data: flipped(data, len(data) - 3),
    "longer than the file": lambda data: (
        data[: (at := last_entry(data) + 20)] + struct.pack("<2I", *[len(data)] * 2) + data[at + 8 :]
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_network_in_the_store_is_made_again_and_said(tmp_path, builds, how):
    store, said = Store(tmp_path), []
    features = Base(BaseSettings(**TINY), store).features(X)
    (file,) = tmp_path.glob("*/openvino.zip")
    whole = file.read_bytes()
    damaged = DAMAGES[how](whole)
    assert damaged != whole
    file.write_bytes(damaged)
    assert np.array_equal(Base(BaseSettings(**TINY), store, said.append).features(X), features)
    assert len(said) == 1
    assert "is damaged" in said[0]
    assert "converted again" in said[0]
    assert file.read_bytes() == whole
    assert len(builds) == 2


# ---- which engine ----------------------------------------------------------------------------------------


@pytest.fixture
def not_convertible(builds, monkeypatch):
    def refuse(network):
        raise BaseNetworkError("OpenVINO cannot convert MobileNetV2: no rule for Erf")

    monkeypatch.setattr("featcache.bases.openvino.convert", refuse)


def test_auto_falls_back_to_tensorflow_and_says_so(tmp_path, not_convertible, bf16, built):
    said = []
    base = Base(BaseSettings(**TINY), Store(tmp_path), said.append)
    features = base.features(X)
    assert base.engine.name == "tensorflow"
    assert said == ["OpenVINO cannot convert MobileNetV2: no rule for Erf. TensorFlow runs it, in f32"]
    assert not list(tmp_path.glob("*/openvino.zip"))
    assert np.array_equal(features, TensorFlowEngine(built[0], BATCH)(X))


@pytest.mark.parametrize(("dtype", "stored_as"), [("auto", "float32"), ("float16", "float16")])
def test_the_fall_back_from_bf16_is_f32(tmp_path, not_convertible, bf16, dtype, stored_as):
    bf16(True)
    settings = BaseSettings(**TINY, dtype=dtype)
    for said in ([], []):  # the second base knows the facts before it builds
        base = Base(settings, Store(tmp_path), said.append)
        assert base.features(X).dtype == stored_as
        assert (base.spec.precision, base.spec.dtype) == ("f32", stored_as)
        assert base.engine.name == "tensorflow"
        assert len(said) == 1


@pytest.mark.parametrize("given", [{"engine": "openvino"}, {"precision": "bf16"}])
def test_openvino_asked_for_and_not_possible_is_an_error(not_convertible, bf16, given):
    bf16(True)
    with pytest.raises(BaseNetworkError, match=r"no rule for Erf.*--engine tensorflow"):
        Base(BaseSettings(**TINY, **given)).features(X)


def test_a_conversion_that_gives_other_numbers_is_refused(built, monkeypatch):
    # precisely the comparison that `convert` ends with
    monkeypatch.setattr(OpenVINOEngine, "__call__", lambda self, x: np.ones((len(x), 1280), np.float32))
    with pytest.raises(BaseNetworkError, match="its features differ from TensorFlow's by"):
        convert(built[0])


def test_tensorflow_asked_for_runs_without_converting(tmp_path, not_convertible):
    base = Base(BaseSettings(**TINY, engine="tensorflow"), Store(tmp_path), quiet)
    base.features(X)
    assert base.engine.name == "tensorflow"


def test_both_engines_f32_features_go_on_one_shelf(builds, bf16):
    one, other = (Base(BaseSettings(**TINY, engine=name)).spec for name in ("openvino", "tensorflow"))
    assert one == other


# ---- which precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "given", "expected"),
    [
        (True, {}, {"f32": "float32", "bf16": "float16"}),
        (False, {}, {"f32": "float32"}),
        (True, {"engine": "openvino"}, {"f32": "float32", "bf16": "float16"}),
        (True, {"engine": "tensorflow"}, {"f32": "float32"}),
        (True, {"precision": "f32"}, {"f32": "float32"}),
        (False, {"precision": "bf16"}, {"bf16": "float16"}),
        (True, {"dtype": "float32"}, {"f32": "float32", "bf16": "float32"}),
        (False, {"dtype": "float16"}, {"f32": "float16"}),
    ],
)
def test_auto_may_be_bf16_only_where_the_processor_has_it(bf16, has, given, expected):
    bf16(has)
    settings = BaseSettings(**given)
    assert {one: stored_dtype(settings, one) for one in allowed_precisions(settings)} == expected


def test_tensorflow_does_not_run_bf16():
    with pytest.raises(BaseNetworkError, match=r"--engine openvino, or --precision f32"):
        check_settings(BaseSettings(engine="tensorflow", precision="bf16"))


def test_bf16_without_the_processor_for_it_is_refused_when_pixels_come_and_not_before(tmp_path, builds, bf16):
    base = Base(BaseSettings(**TINY, precision="bf16"), Store(tmp_path))
    assert (base.spec.precision, base.spec.dtype) == ("bf16", "float16")
    with pytest.raises(BaseNetworkError, match=r"AMX or AVX512-BF16.*--precision f32 or auto"):
        base.features(X)


def test_a_model_keeps_its_precision_on_another_processor(builds, bf16):
    trained = Base(BaseSettings(**TINY)).spec
    bf16(True)
    elsewhere = Base(BaseSettings(**TINY), spec=trained)
    assert elsewhere.features(X).dtype == np.float32
    assert elsewhere.spec == trained


def test_a_bf16_model_runs_in_f32_where_there_is_no_bf16(builds, bf16):
    trained = replace(Base(BaseSettings(**TINY)).spec, precision="bf16", dtype="float16")
    bf16(False)
    heard = []
    elsewhere = Base(BaseSettings(**TINY), note=heard.append, spec=trained)
    assert elsewhere.features(X).dtype == np.float16
    assert "in f32" in heard[0]


# ---- what is stored --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_are_rounded_to_the_stored_type(dtype):
    values = np.array([[0.0, 1 / 3, -65504.0]], np.float32)
    assert stored(values, dtype).dtype == dtype
    assert np.array_equal(stored(values, dtype), values.astype(dtype))


@pytest.mark.parametrize("value", [65520.0, -1e6, 3e38])
def test_a_value_too_large_for_float16_names_the_way_out(value):
    values = np.array([[1.0, value]], np.float32)
    with pytest.raises(FeaturesError, match=r"float16 holds at most 65504; use --dtype float32"):
        stored(values, "float16")
    assert np.array_equal(stored(values, "float32"), values)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number_is_refused(value, dtype):
    with pytest.raises(FeaturesError, match="not finite"):
        stored(np.array([[1.0, value, 2.0]], np.float32), dtype)


def test_features_come_in_the_specs_type(builds, bf16):
    half, single = (Base(BaseSettings(**TINY, dtype=dtype)) for dtype in ("float16", "float32"))
    assert np.array_equal(half.features(X), single.features(X).astype(np.float16))
    assert half.spec == replace(single.spec, dtype="float16")


def test_the_first_inferences_of_a_process_may_come_from_two_threads_at_once(tmp_path):
    """OpenVINO's binding deadlocked in every tenth process before the engine made the first call alone."""
    Base(BaseSettings(**TINY), Store(tmp_path)).prepare()
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from featcache.bases.base import Base; from featcache.recipe import BaseSettings\n"
        "from featcache.store.base_store import Store\n"
        f"base = Base(BaseSettings(**{TINY!r}), Store(Path(sys.argv[1]))); base.prepare()\n"
        "x = np.zeros((4, 32, 32, 3), np.uint8)\n"
        "with Pool(2) as pool: print(sum(len(f) for f in pool.map(base.features, [x] * 8)))"
    )
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == "32", done.stderr
