"""How "auto" chooses the precision, and what is believed of what an earlier run remembered."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from featcache import processor
from featcache.bases.base import NETWORK_FILE, Base
from featcache.bases.contract import Layered
from featcache.bases.openvino import convert, unpack
from featcache.bases.resolution import Resolution, relative_difference
from featcache.bases.sources import build_network
from featcache.bases.spec import network_key, spec_key
from featcache.errors import BaseNetworkError
from featcache.recipe import BaseSettings
from featcache.store.base_store import Store

TINY = {
    "name": "MobileNetV2",
    "arguments": {"alpha": 0.35},
    "weights": "random",
    "image_size": 32,
    "batch_size": 4,
}
AUTO = BaseSettings(**TINY)
X = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def built():
    network = build_network(AUTO)
    return network, convert(network)


@pytest.fixture(autouse=True)
def builds(built, monkeypatch):
    """Have the tiny base at hand where it would be built; the list grows with every building."""
    done = []
    monkeypatch.setattr("featcache.bases.sources.build_network", lambda settings: done.append(1) or built[0])
    monkeypatch.setattr("featcache.bases.openvino.convert", lambda network: built[1])
    return done


@pytest.fixture(scope="module")
def stored_entry(built, tmp_path_factory):
    """The folder of a store that knows the tiny base, as a whole."""
    folder = tmp_path_factory.mktemp("entry") / "cache"
    base = Base(BaseSettings(**TINY, precision="f32"), Store(folder))
    base.prepare()
    return folder


# ---- choosing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "precision", "dtype"), [(0.006, "bf16", "float16"), (0.08, "f32", "float32")]
)
def test_auto_is_bf16_only_where_its_features_agree_with_f32(tmp_path, bf16_error, error, precision, dtype):
    bf16_error(error)
    said = []
    resolution = Base(AUTO, Store(tmp_path), said.append).resolve(lambda: X)
    assert (resolution.spec.precision, resolution.spec.dtype) == (precision, dtype)
    assert resolution.bf16_difference == pytest.approx(error, rel=1e-3)
    assert resolution.photos == len(X)
    assert said == [resolution.sentence("auto")]
    assert f"differ by {error:.2g} of their norm from f32 on 10 photos" in said[0]
    assert resolution.facts["bf16_difference"] == resolution.bf16_difference


def test_the_decision_is_remembered(tmp_path, bf16_error, builds):
    bf16_error(0.006)
    first = Base(AUTO, Store(tmp_path)).resolve(lambda: X)
    again = Base(AUTO, Store(tmp_path), pytest.fail)
    assert again.known == first
    assert again.resolve(lambda: pytest.fail("no photo is needed")) == first
    assert again.features(X[:4]).dtype == np.float16
    assert len(builds) == 1


def test_without_photos_auto_is_f32_and_not_remembered(tmp_path, bf16_error):
    bf16_error(0.006)
    assert Base(AUTO, Store(tmp_path)).spec.precision == "f32"
    assert Base(AUTO, Store(tmp_path)).resolve(lambda: X).spec.precision == "bf16"


def test_bf16_asked_for_says_what_it_costs(tmp_path, bf16_error):
    bf16_error(0.08)
    said = []
    base = Base(BaseSettings(**TINY, precision="bf16"), Store(tmp_path), said.append)
    assert base.resolve(lambda: X).spec.precision == "bf16"
    assert said == [
        "bf16 features of MobileNetV2 differ by 0.08 of their norm from f32 on 10 photos; "
        "--precision f32 is exact"
    ]


def test_a_processor_without_bf16_measures_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    base = Base(AUTO, Store(tmp_path), pytest.fail)
    assert base.resolve(lambda: pytest.fail("no photo is needed")).spec.precision == "f32"


@pytest.mark.bf16
def test_bf16_of_the_processor_is_near_f32(built):
    from featcache.bases.openvino import OpenVINOEngine

    f32, bf16 = (OpenVINOEngine(built[1], built[0].spec, 4, name) for name in ("f32", "bf16"))
    assert 1e-4 < relative_difference(bf16, f32, X, 4) < 0.5


def test_a_difference_from_features_of_zero_is_not_small():
    zeros, ones = (lambda value: lambda x: np.full((len(x), 3), value, np.float32))(0), np.ones
    assert relative_difference(zeros, zeros, X, 4) == 0
    assert relative_difference(lambda x: ones((len(x), 3), np.float32), zeros, X, 4) == float("inf")


def test_f32_features_are_exact_whatever_the_spec_says(tmp_path, bf16_error, built):
    exact = np.asarray(Base(BaseSettings(**TINY, precision="f32")).features(X[:4]))
    bf16_error(0.08)
    spec = built[0].with_precision("bf16", "float16").spec
    base = Base(BaseSettings(**TINY, precision="bf16"), Store(tmp_path), spec=spec)
    assert np.array_equal(base.f32_features(X[:4]), exact)
    assert not np.allclose(base.features(X[:4]), exact, rtol=0.01)


# ---- remembering -----------------------------------------------------------------------------------------


def test_a_bf16_model_does_not_answer_for_this_machine(tmp_path, built, monkeypatch):
    """A model from another machine runs here, and "auto" still means f32."""
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    trained = built[0].with_precision("bf16", "float16").spec
    Base(AUTO, Store(tmp_path), spec=trained).features(X[:4])
    assert Base(AUTO, Store(tmp_path)).known is None
    assert Base(AUTO, Store(tmp_path)).spec.precision == "f32"


def entry_of(stored_entry):
    (file,) = (stored_entry / "resolved").glob(f"{spec_key(BaseSettings(**TINY, precision='f32'))}.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "object"),
        ("dtype", "float16"),
        ("precision", "bf16"),
        ("precision", "f64"),
        ("feature_shape", [10**10]),
        ("feature_shape", ["1280"]),
        ("feature_shape", []),
        ("image_size", [32, 33]),
        ("name", "../../elsewhere"),
        ("name", "other"),
        ("weights", "ab"),
        ("pooling", "max"),
        ("decoder", "1"),
        ("unknown", 1),
    ],
)
@pytest.mark.parametrize("consistent", [False, True], ids=["edited", "with its fingerprint"])
def test_an_entry_that_cannot_be_of_these_settings_is_a_miss(stored_entry, key, value, consistent):
    settings, entry = BaseSettings(**TINY, precision="f32"), entry_of(stored_entry)
    good = Resolution.from_json(entry, settings)
    assert good.to_json() == entry
    entry["spec"][key] = value
    if consistent and hasattr(good.spec, key):
        entry["fingerprint"] = replace(good.spec, **{key: value}).fingerprint
    with pytest.raises((ValueError, KeyError, TypeError)):
        Resolution.from_json(entry, settings)


def test_an_edited_layer_does_not_fit_its_fingerprint(stored_entry):
    entry = entry_of(stored_entry)
    entry["spec"]["layer"] = "other"
    with pytest.raises(ValueError, match="not the one that was remembered"):
        Resolution.from_json(entry, BaseSettings(**TINY, precision="f32"))


def test_a_damaged_entry_is_resolved_again(tmp_path, builds):
    store = Store(tmp_path)
    settings = BaseSettings(**TINY, precision="f32")
    spec = Base(settings, store).spec
    (file,) = tmp_path.glob(f"resolved/{spec_key(settings)}.json")
    for text in ("", "[]", "{", '{"spec": 1}', file.read_text().replace("float32", "object")):
        file.write_text(text)
        assert Base(settings, store).spec == spec
    assert len(builds) == 6


def test_another_networks_file_in_its_place_is_not_run(tmp_path, builds):
    store, said = Store(tmp_path), []
    settings = BaseSettings(**TINY, precision="f32")
    base = Base(settings, store)
    features = base.features(X[:4])
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("model.xml", "<net/>")
        archive.writestr("model.bin", b"")
    store.save_file(base.spec.folder_name, NETWORK_FILE, other.getvalue())
    assert np.array_equal(Base(settings, store, said.append).features(X[:4]), features)
    assert "damaged or was replaced" in said[0]
    assert len(builds) == 2


def test_a_compressed_archive_is_refused_before_it_is_read():
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.xml", bytes(10**6))
        archive.writestr("model.bin", b"")
    with pytest.raises(ValueError, match="not stored uncompressed"):
        unpack(bomb.getvalue())


def test_of_layered_stores_all_are_read_and_only_the_first_is_written(tmp_path, stored_entry, builds):
    settings = BaseSettings(**TINY, precision="f32")
    before = {path: path.stat().st_mtime_ns for path in stored_entry.rglob("*")}
    own, none = Store(tmp_path / "own"), Store(tmp_path / "none")
    features = Base(settings, Layered(own, Store(stored_entry)), pytest.fail).features(X[:4])
    assert (builds, own.folder.exists()) == ([], False)
    built = Base(settings, Layered(own, none))
    assert np.array_equal(built.features(X[:4]), features)
    assert (len(builds), none.folder.exists()) == (1, False)
    assert own.load_file(built.spec.folder_name, NETWORK_FILE) is not None
    assert {path: path.stat().st_mtime_ns for path in stored_entry.rglob("*")} == before


def test_threads_build_bases_in_one_process(tmp_path, monkeypatch):
    monkeypatch.undo()  # really build them
    sizes = (32, 40, 48, 56)

    def features(size):
        base = Base(BaseSettings(**TINY | {"image_size": size}, precision="f32"), Store(tmp_path))
        return base.features(np.zeros((2, size, size, 3), np.uint8))

    with ThreadPoolExecutor(len(sizes)) as pool:
        together = list(pool.map(features, sizes))
    assert all(np.array_equal(one, features(size)) for one, size in zip(together, sizes, strict=True))


def test_a_pipe_is_not_opened_as_a_network_or_as_weights(tmp_path):
    for name, settings in (("a.keras", {"name": "a.keras"}), ("a.weights.h5", {"weights": "a.weights.h5"})):
        os.mkfifo(tmp_path / name)
        given = {key: str(tmp_path / value) for key, value in settings.items()}
        with pytest.raises(BaseNetworkError, match="not a regular file"):
            Base(BaseSettings(**TINY | given))


# ---- mutated files, in a process of their own: OpenVINO's parsers are C++ --------------------------------

CHILD = """
import sys, numpy as np
from pathlib import Path
from featcache.bases.base import Base
from featcache.errors import FeatcacheError
from featcache.recipe import BaseSettings
from featcache.store.base_store import Store
folder, settings = Path(sys.argv[1]), BaseSettings(**{tiny!r}, precision="f32")
def no_network(*_):
    raise FeatcacheError("would be built")
import featcache.bases.sources as sources
sources.build_network = no_network
x = np.load(folder / "x.npy")
for place in sorted(folder.glob("cache-*")):
    try:
        print(Base(settings, Store(place)).features(x).tobytes().hex()[:64])
    except FeatcacheError as error:
        print(error)
"""


def mutated(data, chance):
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out))
        match chance.randrange(3):
            case 0:
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                del out[at : at + chance.randint(1, 50)]
            case 2:
                out[at:at] = chance.randbytes(chance.randint(1, 50))
    return bytes(out) or b"x"


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_mutated_files_of_the_store_are_refused_or_give_the_same(tmp_path, stored_entry, count):
    settings = BaseSettings(**TINY, precision="f32")
    expected = Base(settings, Store(stored_entry)).features(X[:4]).tobytes().hex()[:64]
    files = [path for path in stored_entry.rglob("[!.]*") if path.is_file() and path.stat().st_size]
    chance = random.Random(count)
    np.save(tmp_path / "x.npy", X[:4])
    for number in range(count):
        victim = chance.choice(files)
        for path in files:
            copy = tmp_path / f"cache-{number:03}" / path.relative_to(stored_entry)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path == victim:
                copy.write_bytes(mutated(path.read_bytes(), chance))
            else:
                copy.hardlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("{tiny!r}", repr(TINY)), tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-500:]
    printed = done.stdout.splitlines()
    assert len(printed) == count
    assert set(printed) <= {expected, "would be built"}
    assert "would be built" in printed


def test_the_hash_of_the_network_is_on_record(stored_entry):
    store = Store(stored_entry)
    (file,) = stored_entry.glob(f"*/{NETWORK_FILE}")
    spec = Base(BaseSettings(**TINY, precision="f32"), store).spec
    assert store.load_spec(network_key(spec)) == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
