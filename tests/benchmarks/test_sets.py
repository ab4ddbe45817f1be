"""Sets have every photo once, with its own label, weight and path."""

import shutil

import numpy as np
from conftest import TINY_BASE
from PIL import Image

from benchmarks import sets
from benchmarks.sets import Photo


def test_a_photo_that_is_twice_in_a_set_is_taken_once(monkeypatch, tmp_path, tiny_store):
    """The order of the rows is that of the paths, and facts follow the photo."""

    def photos(folder):
        for number in range(80):
            path = folder / f"{79 - number:02}.png"
            Image.new("RGB", (32, 32), (5 * (number // 2), 0, 0)).save(path)  # two of each colour
            yield Photo(path, "ab"[number // 40], weight=1 + number // 2, kind=f"kind {number // 2}")

    shutil.copytree(tiny_store, tmp_path / "cache")
    monkeypatch.setitem(sets.SETS, "colours", photos)
    monkeypatch.setattr(sets, "_network", lambda: TINY_BASE)
    found = sets.feature_set("colours", tmp_path)
    assert len(found.X) == len({row.tobytes() for row in found.X}) == 40
    assert found.classes == ("a", "b")
    assert [path[-6:] for path in found.paths] == [f"{number:02}.png" for number in range(0, 80, 2)]
    assert found.y.tolist() == [1] * 20 + [0] * 20
    assert found.weights.tolist() == list(range(40, 0, -1))
    assert found.kinds.tolist() == [f"kind {number}" for number in range(39, -1, -1)]


def test_features_are_computed_once(monkeypatch, tmp_path):
    arrays = {
        "X": np.zeros((1, 1280), np.float32),
        "y": np.zeros(1, np.int64),
        "classes": np.array(["a"]),
        "weights": np.ones(1),
        "kinds": np.array(["a"]),
        "paths": np.array(["a.png"]),
    }
    calls = []
    monkeypatch.setattr(sets, "_computed", lambda photos, folder: calls.append(folder) or arrays)
    monkeypatch.setitem(sets.SETS, "one", lambda folder: [])
    assert [sets.feature_set("one", tmp_path).paths.tolist() for _ in range(2)] == [["a.png"]] * 2
    assert calls == [tmp_path]
    assert [path.name for path in tmp_path.glob("one*")] == ["one.npz"]


def test_solar_cells_are_labelled_by_the_more_probable_class(monkeypatch, tmp_path):
    cells = [
        (tmp_path / "a.png", 1.0, "mono"),
        (tmp_path / "b.png", 2 / 3, "poly"),
        (tmp_path / "c.png", 1 / 3, "poly"),
    ]
    monkeypatch.setattr(sets, "_cells", lambda: iter(cells))
    found = [(one.label, round(one.weight, 3), one.kind) for one in sets.solar_cells(tmp_path)]
    assert found == [
        ("defective", 1.0, "mono"),
        ("defective", 0.667, "poly"),
        ("functional", 0.667, "poly"),
    ]
