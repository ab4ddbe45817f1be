"""A grid shows each photo with what is said of it, in the colour that tells whether it is right."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_photo
from matplotlib.colors import to_hex
from PIL import Image

from featcache.errors import DataError
from featcache.images.source import digest_photo
from featcache.model import Prediction
from featcache.model_photos import ModelPhotos
from featcache.report.grid import (
    RIGHT,
    UNKNOWN,
    WRONG,
    labels_from_folders,
    prediction_grid,
    trained_on,
    write_grid,
)
from featcache.report.plots import write_figure


@pytest.fixture
def said(tmp_path):
    """Predictions of five photos in folders of two classes: the last dog is taken for a cat."""
    found = []
    for number, (folder, label) in enumerate(
        [("cat", "cat"), ("cat", "cat"), ("dog", "dog"), ("dog", "cat"), ("new", "dog")]
    ):
        path = tmp_path / folder / f"{number}.png"
        make_photo(path, number, size=(40 + 300 * (number == 2), 32))
        found.append(Prediction(str(path), label, 0.9 + number / 100))
    return found


LABELS = ["cat", "cat", "dog", "dog", None]


def titles(figure):
    return [(axes.get_title(), to_hex(axes.title.get_color()).upper()) for axes in figure.axes]


def test_right_is_green_wrong_is_red_and_unknown_is_black(said):
    figure = prediction_grid(said, LABELS)
    assert titles(figure) == [
        ("cat 90%", RIGHT),
        ("cat 91%", RIGHT),
        ("dog 92%", RIGHT),
        ("cat 93% (is dog)", WRONG),
        ("dog 94%", UNKNOWN),
    ]
    assert figure.get_suptitle() == "3 of 4 photos right (75.0%)"
    assert {colour for _, colour in titles(prediction_grid(said))} == {UNKNOWN}


def test_photos_that_the_model_was_trained_on_are_marked_and_counted(said, tmp_path):
    digests = [np.frombuffer(digest_photo(one.path)[0], np.uint8) for one in said[1:3]]
    photos = ModelPhotos.of(np.stack(digests), np.empty((0, 32), np.uint8))
    gone = Prediction(str(tmp_path / "gone.png"), None, reason="gone")
    assert trained_on([*said, gone], photos) == [False, True, True, False, False, False]
    figure = prediction_grid(said, LABELS, trained_on=trained_on(said, photos))
    marks = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert marks == [[], ["trained on"], ["trained on"], [], []]
    assert figure.get_suptitle().endswith("\nthe model was trained on 2 of them")
    assert trained_on(said, None) == [False] * 5


def test_rejected_photos_are_drawn_and_are_neither_right_nor_wrong(said):
    none = replace(said[3], label=None, probability=None, novelty=0.01, rejected=True)
    figure = prediction_grid([*said[:3], none], LABELS[:4])
    assert titles(figure)[3] == ("none of these (is dog)", UNKNOWN)
    assert figure.get_suptitle() == "3 of 3 photos right (100.0%); 1 none of these"


def test_photos_are_drawn_whole_and_in_their_aspect(said):
    first, _, third, *_ = prediction_grid(said).axes
    shown = first.images[0].get_array()
    np.testing.assert_array_equal(shown, np.asarray(Image.open(said[0].path).convert("RGB")))
    assert third.images[0].get_array().shape == (28, 300, 3)  # 340 × 32


def test_the_true_class_is_that_of_the_folder_if_the_model_knows_it(said):
    assert labels_from_folders(said, ("cat", "dog")) == LABELS


def test_a_folder_seen_from_inside_has_its_name(tmp_path, monkeypatch):
    make_photo(tmp_path / "dog" / "1.png", 1)
    monkeypatch.chdir(tmp_path / "dog")
    assert labels_from_folders([Prediction("1.png", "cat")], ("cat", "dog")) == ["dog"]


def many(count, wrong=()):
    photos = np.zeros((count, 4, 6, 3), np.uint8)
    labels = ["cat" if number < count // 2 else "dog" for number in range(count)]
    predictions = [
        Prediction("", "owl" if number in wrong else label, 0.5 + number / 1000)
        for number, label in enumerate(labels)
    ]
    return predictions, labels, photos


def test_of_many_photos_25_from_all_folders_are_drawn():
    predictions, labels, photos = many(98)
    figure = prediction_grid(predictions, labels, photos=photos)
    names = [title.split()[0] for title, _ in titles(figure)]
    assert len(figure.axes) == 25
    assert abs(names.count("cat") - names.count("dog")) <= 1
    assert figure.get_suptitle() == "98 of 98 photos right (100.0%); 25 of 98 photos shown"
    assert len(prediction_grid(predictions, labels, photos=photos, most=7).axes) == 7


def test_the_wrong_ones_come_first_if_asked_for_the_most_certain_in_front():
    predictions, labels, photos = many(40, wrong=(3, 30, 35))
    shown = titles(prediction_grid(predictions, labels, photos=photos, most=9, wrong_first=True))
    assert [title for title, _ in shown[:3]] == ["owl 54% (is dog)", "owl 53% (is dog)", "owl 50% (is cat)"]
    assert [colour for _, colour in shown] == [WRONG] * 3 + [RIGHT] * 6
    shown = titles(prediction_grid(predictions, labels, photos=photos, most=2, wrong_first=True))
    assert [colour for _, colour in shown] == [WRONG] * 2


def test_titles_take_names_as_they_are_and_break_long_ones(tmp_path):
    names = ["$x_1$ 100%", "german_shorthaired_pointer", "Staffordshire bull terrier of Leeds"]
    figure = prediction_grid(
        [Prediction("", name, None) for name in names], photos=np.zeros((3, 4, 4, 3), np.uint8)
    )
    assert [title.replace("\n", "") for title, _ in titles(figure)] == [
        names[0],
        names[1],
        "Staffordshire bullterrier of Leeds",
    ]
    assert [title.count("\n") for title, _ in titles(figure)] == [0, 1, 1]
    write_figure(figure, tmp_path / "names.png")  # mathematics would fail here


def test_titles_do_not_overlap(said, tmp_path):
    figure = prediction_grid([Prediction(one.path, "a class of a long name", 0.99) for one in said], LABELS)
    figure.savefig(tmp_path / "drawn.png")
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    width, height = figure.get_size_inches() * figure.dpi
    assert all(box.x0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    for number, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])


def test_what_could_not_be_decoded_is_left_out(said):
    broken = Prediction("broken.png", None, reason="damaged")
    assert len(prediction_grid([broken, *said[:2]], [None, "cat", "cat"]).axes) == 2
    with pytest.raises(DataError, match="nothing to draw"):
        prediction_grid([broken])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ["cat"]}, "5 predictions and 1 labels"),
        ({"photos": []}, "5 predictions and 0 photos"),
    ],
)
def test_labels_and_photos_go_with_the_predictions(said, given, message):
    with pytest.raises(DataError, match=message):
        prediction_grid(said, **given)


def test_photos_that_are_not_there_are_named(said):
    with pytest.raises(DataError, match=r"gone\.png cannot be drawn"):
        prediction_grid([Prediction("gone.png", "cat")])
    with pytest.raises(DataError, match="give the array as photos"):
        prediction_grid([Prediction("", "cat")])


def test_a_grid_is_written_as_a_whole_png_file(said, tmp_path):
    path = write_grid(said, ("cat", "dog"), tmp_path / "made" / "grid.png")
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    assert list((tmp_path / "made").iterdir()) == [path]


def test_drawing_leaves_matplotlib_as_it_was():
    code = (
        "import sys, featcache as fc\n"
        "assert 'matplotlib' not in sys.modules\n"
        "fc.prediction_grid, fc.learning_curves\n"
        "assert 'matplotlib' not in sys.modules and 'sklearn' not in sys.modules\n"
        "import io, matplotlib, numpy as np\n"
        "from featcache.model import Prediction\n"
        "def settings():  # asking for the backend itself would choose one\n"
        "    return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = settings()\n"
        "grid = fc.prediction_grid([Prediction('', 'cat')], photos=np.zeros((1, 4, 4, 3), np.uint8))\n"
        "grid.savefig(io.BytesIO(), format='png')\n"
        "assert settings() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
