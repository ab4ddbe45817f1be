"""predictions.npz comes back as it was written, or not at all."""

import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import FormatError
from featcache.run.predictions import (
    HeadPredictions,
    RunPredictions,
    ScoredRows,
    load_predictions,
    write_predictions,
)


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    rows = ScoredRows(
        rng.integers(256, size=(20, 32), dtype=np.uint8), rng.integers(3, size=20), rng.integers(4, size=20)
    )
    probabilities = rng.dirichlet(np.ones(3), size=20).astype(np.float32)
    heads = {
        "a": HeadPredictions(probabilities.argmax(axis=1), probabilities, "sum-a"),
        "b": HeadPredictions(rng.integers(3, size=20), None, "sum-b"),
    }
    return RunPredictions("fingerprint", ("x", "y", "é"), rows, heads)


def equal(one, other):
    return (
        (one.data, one.classes, list(one.heads)) == (other.data, other.classes, list(other.heads))
        and one.rows.equals(other.rows)
        and all(same(one.heads[name], other.heads[name]) for name in one.heads)
    )


def same(one, other):
    shares = (one.probabilities is None) == (other.probabilities is None)
    shares = shares and (one.probabilities is None or np.array_equal(one.probabilities, other.probabilities))
    return (
        shares and one.model_sha256 == other.model_sha256 and np.array_equal(one.predicted, other.predicted)
    )


def test_what_is_written_comes_back(made, tmp_path):
    write_predictions(tmp_path / "p.npz", made)
    assert equal(load_predictions(tmp_path / "p.npz"), made)
    with np.load(tmp_path / "p.npz") as file:  # any program can read it
        assert file["probabilities_0"].shape == (20, 3)


def test_weights_and_groups_come_back(made, tmp_path):
    rows = replace(made.rows, weights=np.arange(20) / 7, groups=np.arange(20) - 9)
    write_predictions(tmp_path / "p.npz", replace(made, rows=rows))
    found = load_predictions(tmp_path / "p.npz").rows
    assert found.equals(rows)
    assert not found.equals(made.rows)
    assert not found.equals(replace(rows, groups=rows.groups + 1))


def test_probabilities_that_are_stored_by_columns_come_back(made, tmp_path):
    """scikit-learn's GaussianNB gives such arrays."""
    by_columns = replace(made.heads["a"], probabilities=np.asfortranarray(made.heads["a"].probabilities))
    write_predictions(tmp_path / "p.npz", replace(made, heads={**made.heads, "a": by_columns}))
    assert equal(load_predictions(tmp_path / "p.npz"), made)


def test_changed_bytes_are_refused_or_change_nothing(made, tmp_path):
    write_predictions(tmp_path / "p.npz", made)
    content = (tmp_path / "p.npz").read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for at in rng.integers(len(content), size=300):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "p.npz").write_bytes(damaged)
        try:
            assert equal(load_predictions(tmp_path / "p.npz"), made)
        except FormatError:
            refused += 1
    assert refused > 200, "a zip file has a checksum of every member"


def member(data):
    text = io.BytesIO()
    np.save(text, data)
    return text.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels", member(np.array([0, 1, 9]))),
        ("labels", member(np.array([0.5]))),
        ("labels", member(np.array([{}], object))),
        ("digests", member(np.zeros((20, 31), np.uint8))),
        ("probabilities_0", member(np.full((20, 3), np.nan, np.float32))),
        ("probabilities_0", member(np.full((20, 2), 0.5, np.float32))),
        ("predicted_1", member(np.full(20, -1))),
        ("folds", member(np.full(20, 20))),
        ("weights", member(np.full(20, -1.0))),
        ("weights", member(np.full(20, np.nan))),
        ("groups", member(np.zeros(19, np.int64))),
        ("facts", member(np.frombuffer(json.dumps({"format": 2}).encode(), np.uint8))),
        ("facts", member(np.frombuffer(b"[" * 9999, np.uint8))),
        # a header that claims an exabyte
        ("predicted_0", member(np.zeros(20, np.int64)).replace(b"(20,), }", b"(1<<60,)}")),
        ("predicted_0", member(np.zeros(20, np.int64)).replace(b"(20,), }       ", b"(999999999999,)}")),
    ],
)
def test_arrays_that_do_not_belong_there_are_refused(made, tmp_path, name, content):
    write_predictions(tmp_path / "p.npz", made)
    with zipfile.ZipFile(tmp_path / "p.npz") as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    members[f"{name}.npy"] = content
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        for one, data in members.items():
            archive.writestr(one, data)
    with pytest.raises(FormatError, match="damaged"):
        load_predictions(tmp_path / "p.npz")


def test_compressed_members_are_refused_before_they_are_read(made, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", b"0" * 10_000_000)
    with pytest.raises(FormatError, match="compressed"):
        load_predictions(tmp_path / "p.npz")


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "p.npz")
    with pytest.raises(OSError, match="not a regular file"):
        load_predictions(tmp_path / "p.npz")
