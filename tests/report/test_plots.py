"""Learning curves show the numbers they are given; what they look like, people have to judge."""

from pathlib import Path

import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from featcache.errors import DataError, StoreError
from featcache.finetuning.checkpoints import History
from featcache.heads.dense.head import DenseHead
from featcache.heads.keras_head import KerasHead
from featcache.report.plots import check_name, learning_curves, write_figure

BEFORE = {"loss": 0.8, "accuracy": 0.4}
HISTORY = {
    "loss": [0.7, 0.5, 0.4, 0.3],
    "accuracy": [0.6, 0.7, 0.8, 0.9],
    "val_loss": [0.6, 0.4, 0.5, 0.6],
    "val_accuracy": [0.62, 0.81, 0.78, 0.75],
}
FINETUNING = History(
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


def test_the_curves_of_a_head_are_its_history_from_before_training_on():
    figure = learning_curves(head(early_stopping=False), title="linear")
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
    figure = learning_curves(head(early_stopping=True), FINETUNING)
    for measure in ("accuracy", "loss"):
        drawn = lines(figure, measure)
        assert drawn["training"] == ([1, 2, 3, 4, 5, 6], HISTORY[measure] + FINETUNING.per_epoch[measure])
        epochs, values = drawn["validation"]
        assert epochs == [0, 1, 2, 3, 4, 4, 5, 6]  # at 4 the last epoch, and the kept one
        assert values[4:6] == [HISTORY[f"val_{measure}"][3], HISTORY[f"val_{measure}"][1]]
        assert values[6:] == FINETUNING.per_epoch[f"val_{measure}"]
        assert drawn["_start of fine-tuning"][0] == [4, 4]
        assert drawn["kept"] == ([5], FINETUNING.per_epoch[f"val_{measure}"][:1])
    assert [text.get_text() for text in figure.axes[0].texts] == ["start of fine-tuning"]
    assert figure.axes[0].texts[0].get_position()[0] == 4
    assert legend(figure)[-1] == "kept: epoch 5 (1 of fine-tuning)"


def test_a_fresh_head_begins_with_fine_tuning():
    fresh = head(before=None, history={name: [] for name in HISTORY})
    fresh.n_iter_ = fresh.best_epoch_ = 0
    figure = learning_curves(fresh, FINETUNING)
    for measure in ("accuracy", "loss"):
        drawn = lines(figure, measure)
        assert drawn["training"] == ([1, 2], FINETUNING.per_epoch[measure])
        assert drawn["validation"][0] == [0, 1, 2]
        assert drawn["validation"][1] == [FINETUNING.before[measure], *FINETUNING.per_epoch[f"val_{measure}"]]
        assert drawn["_start of fine-tuning"][0] == [0, 0]
    assert "0: before training" in figure.axes[1].get_xlabel()


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
    with pytest.raises(DataError, match="LogisticRegression has no history"):
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


def test_pictures_are_whole_png_files(tmp_path):
    path = write_figure(learning_curves(head(), FINETUNING), tmp_path / "made" / "curves.png")
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 800
        assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert list((tmp_path / "made").iterdir()) == [path]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        write_figure(learning_curves(head()), tmp_path / "file" / "curves.png")


def test_other_names_than_png_are_refused():
    assert check_name(Path("a.PNG")) == Path("a.PNG")
    for name in ("grid.jpg", "grid"):
        with pytest.raises(DataError, match=r"call it grid\.png"):
            check_name(Path(name))
