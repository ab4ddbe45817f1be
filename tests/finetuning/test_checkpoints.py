"""A checkpoint is used only if it is the one that was written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import StoreError
from featcache.finetuning.checkpoints import Checkpoints, History


class Variable:
    """What a checkpoint needs of a variable of Keras."""

    def __init__(self, *shape):
        self.value = np.zeros(shape, np.float32)
        self.shape = shape

    def __array__(self, dtype=None, copy=None):
        return self.value

    def assign(self, value):
        self.value = value


def named(variables):
    return {f"weight_{number}": variable for number, variable in enumerate(variables)}


def trained(folder, epochs=3, note=lambda _: None):
    """Write checkpoints whose weights are the epoch's number; the second epoch is the best."""
    variables = [Variable(2, 3), Variable(3)]
    checkpoints, history = (
        Checkpoints(folder, named(variables), note),
        History({"loss": 1.0, "accuracy": 0.5}),
    )
    for epoch in range(1, epochs + 1):
        for variable in variables:
            variable.assign(np.full(variable.shape, epoch, np.float32))
        measures = {"loss": 1 / epoch, "val_loss": 0.5 if epoch == 2 else 1.0, "val_accuracy": 0.8}
        history.append(measures)
        checkpoints.save(history)
    return checkpoints, variables, history


def test_the_last_epoch_is_resumed_and_the_best_is_loaded(tmp_path):
    _, _, history = trained(tmp_path)
    variables = [Variable(2, 3), Variable(3)]
    checkpoints = Checkpoints(tmp_path, named(variables))
    assert checkpoints.resume() == history
    assert variables[0].value[0, 0] == 3
    assert checkpoints.load(history.best_epoch).epochs == 2
    assert variables[1].value[0] == 2


def test_the_metric_decides_which_epoch_is_best_and_the_loss_among_equals():
    measures = {"val_loss": [0.3, 0.1, 0.2], "val_accuracy": [0.9, 0.8, 0.9], "val_macro_f1": [0.7, 0.6, 0.5]}
    best = {
        metric: History({}, measures, metric).best_epoch for metric in ("log_loss", "accuracy", "macro_f1")
    }
    assert best == {"log_loss": 2, "accuracy": 3, "macro_f1": 1}


def test_nothing_is_resumed_from_an_empty_folder(tmp_path):
    assert Checkpoints(tmp_path / "none", named([Variable(1)])).resume() is None


def test_a_damaged_last_epoch_is_said_and_the_one_before_is_used(tmp_path):
    notes = []
    checkpoints, variables, _ = trained(tmp_path, note=notes.append)
    path = tmp_path / "epoch-0003.npz"
    path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)
    assert checkpoints.resume().epochs == 2
    assert variables[0].value[0, 0] == 2
    assert "epoch-0003.npz is not used: its checksum is wrong" in notes[0]


def test_without_the_best_epoch_an_earlier_one_is_resumed(tmp_path):
    checkpoints, _, _ = trained(tmp_path)
    (tmp_path / "epoch-0002.npz").unlink()
    assert checkpoints.resume().epochs == 1


def test_a_checkpoint_under_another_number_or_of_other_shapes_is_not_used(tmp_path):
    checkpoints, _, _ = trained(tmp_path)
    (tmp_path / "epoch-0009.npz").write_bytes((tmp_path / "epoch-0001.npz").read_bytes())
    assert checkpoints.resume().epochs == 3
    other = Checkpoints(tmp_path, named([Variable(4, 3), Variable(3)]))
    assert other.resume() is None


def test_a_missing_checkpoint_is_an_error_that_names_it(tmp_path):
    checkpoints, _, _ = trained(tmp_path)
    (tmp_path / "epoch-0002.npz").unlink()
    with pytest.raises(StoreError, match=r"epoch-0002\.npz is missing or damaged"):
        checkpoints.load(2)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_or_cut_checkpoint_is_loaded_as_other_content(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("epochs")
    checkpoints, _, _ = trained(folder, epochs=1)
    path = folder / "epoch-0001.npz"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    path.write_bytes(bytes(content))
    assert checkpoints.resume() is None
