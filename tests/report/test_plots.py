"""Pictures show the numbers they are given; what they look like, people have to judge."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photo
from matplotlib.colors import to_hex
from PIL import Image
from sklearn.linear_model import LogisticRegression

from featcache.errors import DataError, StoreError
from featcache.heads.dense import DenseHead
from featcache.heads.keras_head import KerasHead
from featcache.heads.tuning import Tuning
from featcache.model import Prediction
from featcache.report import plots
from featcache.report.plots import RIGHT, UNKNOWN, WRONG, learning_curves, prediction_grid, write_figure

BEFORE = {"loss": 0.8, "accuracy": 0.4}
HISTORY = {
    "loss": [0.7, 0.5, 0.4, 0.3],
    "accuracy": [0.6, 0.7, 0.8, 0.9],
    "val_loss": [0.6, 0.4, 0.5, 0.6],
    "val_accuracy": [0.62, 0.81, 0.78, 0.75],
}
TUNING = Tuning(
    {"loss": 0.4, "accuracy": 0.81},
    {"loss": [0.2, 0.1], "accuracy": [0.95, 1.0], "val_loss": [0.3, 0.35], "val_accuracy": [0.9, 0.9]},
)


def head(before=BEFORE, history=HISTORY, **settings):
    """A Dense head that says it was trained."""
    made = DenseHead(**settings)
    made.before_, made.history_, made.best_epoch_, made.n_iter_ = before, history, 2, 4
    return made


def lines(figure, measure):
    """Return the lines of one plot by their labels."""
    (axes,) = (axes for axes in figure.axes if axes.get_ylabel() == measure)
    found = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    return {label.partition(":")[0]: data for label, data in found.items()}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- learning curves -------------------------------------------------------------------------------------


def test_the_curves_of_a_head_are_its_history_from_before_training_on():
    figure = learning_curves(head(), title="linear")
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "loss"]
    for measure in ("accuracy", "loss"):
        drawn = lines(figure, measure)
        assert drawn["training"] == ([1, 2, 3, 4], HISTORY[measure])
        assert drawn["validation"] == ([0, 1, 2, 3, 4], [BEFORE[measure], *HISTORY[f"val_{measure}"]])
        assert drawn["kept"] == ([4], HISTORY[f"val_{measure}"][-1:])
        assert set(drawn) == {"training", "validation", "kept"}
    assert legend(figure) == ["training", "validation", "kept: epoch 4"]
    assert "0: before training" in figure.axes[1].get_xlabel()
    assert figure.get_suptitle() == "linear"
    assert figure.axes[1].get_xlim() == (-0.5, 4.5)


def test_with_early_stopping_the_best_epoch_was_kept():
    drawn = lines(learning_curves(head(early_stopping=True)), "accuracy")
    assert drawn["kept"] == ([2], [0.81])


def test_fine_tuning_goes_on_where_the_head_ended_and_a_line_says_so():
    figure = learning_curves(head(early_stopping=True), TUNING)
    for measure in ("accuracy", "loss"):
        drawn = lines(figure, measure)
        assert drawn["training"] == ([1, 2, 3, 4, 5, 6], HISTORY[measure] + TUNING.history[measure])
        epochs, values = drawn["validation"]
        assert epochs == [0, 1, 2, 3, 4, 4, 5, 6]  # at 4 the last epoch, and the kept one
        assert values[4:6] == [HISTORY[f"val_{measure}"][3], HISTORY[f"val_{measure}"][1]]
        assert values[6:] == TUNING.history[f"val_{measure}"]
        assert drawn["_start of fine-tuning"][0] == [4, 4]
        assert drawn["kept"] == ([5], TUNING.history[f"val_{measure}"][:1])
    assert [text.get_text() for text in figure.axes[0].texts] == ["start of fine-tuning"]
    assert figure.axes[0].texts[0].get_position()[0] == 4
    assert legend(figure)[-1] == "kept: epoch 5 (1 of fine-tuning)"


def test_a_head_without_validation_has_one_line():
    figure = learning_curves(head(before=None, history={"loss": [2.0, 1.0, 0.5, 0.2], "accuracy": [0.5] * 4}))
    assert set(lines(figure, "loss")) == {"training", "kept"}
    assert figure.axes[1].get_xlabel() == "epoch"


def test_of_a_keras_head_is_drawn_what_it_measured():
    own = KerasHead(None)
    own.history_, own.n_iter_ = {"loss": [1.0, 0.5], "mae": [1.0, 2.0]}, 2
    figure = learning_curves(own)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]
    assert lines(figure, "loss") == {"training": ([1, 2], [1.0, 0.5])}


def test_a_head_without_history_is_refused():
    with pytest.raises(DataError, match="LogisticRegression keeps no history"):
        learning_curves(LogisticRegression())


def test_axes_show_every_value_from_a_sensible_minimum():
    accuracy, loss = learning_curves(head()).axes
    assert accuracy.get_ylim()[0] == pytest.approx(0.3)
    assert 1 < accuracy.get_ylim()[1] < 1.05
    assert loss.get_yscale() == "linear"
    assert loss.get_ylim()[0] == 0
    good = {**HISTORY, "accuracy": [0.97, 0.98, 0.99, 1.0], "val_accuracy": [0.96] * 4}
    assert learning_curves(head({**BEFORE, "accuracy": 0.95}, good)).axes[0].get_ylim()[0] == 0.9


def test_a_loss_that_dwarfs_the_others_leaves_them_to_be_seen():
    loss = learning_curves(head({"loss": 20.0, "accuracy": 0.5})).axes[1]
    assert loss.get_yscale() == "log"
    assert loss.get_ylim()[0] < 0.3
    assert loss.get_ylim()[1] > 20


# ---- photos ----------------------------------------------------------------------------------------------


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


def test_photos_are_drawn_whole_and_in_their_aspect(said):
    first, _, third, *_ = prediction_grid(said).axes
    shown = first.images[0].get_array()
    np.testing.assert_array_equal(shown, np.asarray(Image.open(said[0].path).convert("RGB")))
    assert third.images[0].get_array().shape == (28, 300, 3)  # 340 × 32


def test_the_true_class_is_that_of_the_folder_if_the_model_knows_it(said):
    assert plots.labels_from_folders(said, ("cat", "dog")) == LABELS


def test_a_folder_seen_from_inside_has_its_name(tmp_path, monkeypatch):
    make_photo(tmp_path / "dog" / "1.png", 1)
    monkeypatch.chdir(tmp_path / "dog")
    assert plots.labels_from_folders([Prediction("1.png", "cat")], ("cat", "dog")) == ["dog"]


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


# ---- files -----------------------------------------------------------------------------------------------


def test_pictures_are_whole_png_files(said, tmp_path):
    for name, figure in (
        ("curves.png", learning_curves(head(), TUNING)),
        ("grid.png", prediction_grid(said, LABELS)),
    ):
        path = write_figure(figure, tmp_path / "made" / name)
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 400
            assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"curves.png", "grid.png"}
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        write_figure(learning_curves(head()), tmp_path / "file" / "curves.png")


def test_other_names_than_png_are_refused():
    assert plots.check_name(Path("a.PNG")) == Path("a.PNG")
    for name in ("grid.jpg", "grid"):
        with pytest.raises(DataError, match=r"call it grid\.png"):
            plots.check_name(Path(name))


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
