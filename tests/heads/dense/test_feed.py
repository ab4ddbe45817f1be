"""Features on disk reach the training like those in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import TrainingError
from featcache.heads.dense import feed
from featcache.heads.dense.feed import InMemory, Rows, Streamed
from featcache.heads.dense.head import DenseHead


class OnDisk:
    """What a split of a feature file is to the heads."""

    def __init__(self, features, labels):
        self._features, self.labels = features, labels
        self.shape, self.dtype = features.shape, features.dtype
        self.reads = []

    def __len__(self):
        return len(self._features)

    def read(self, start, stop):
        self.reads.append((start, stop))
        return self._features[start:stop].copy()


def source(n, shape=(4,), dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, *shape)).astype(dtype)
    labels = (features.reshape(n, -1)[:, :2].sum(1) > 0).astype(np.int64)
    return OnDisk(features, labels)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    batch=st.integers(1, 40),
    block=st.integers(1, 64),
    per_piece=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_every_row_comes_once_in_whole_batches_with_its_label(n, batch, block, per_piece, seed):
    on_disk = source(n)
    streamed = Streamed(on_disk, on_disk.labels, "flatten", 1)
    streamed._block, streamed._buffer = block, block * per_piece
    taken, sizes = [], []
    for rows, order in streamed.shuffled(np.random.default_rng(seed), batch):
        assert len(set(order.tolist())) == len(order)
        taken += [(*rows.features[i].tolist(), int(rows.labels[i])) for i in order]
        sizes.append(len(order))
    expected = [(*x.tolist(), int(y)) for x, y in zip(on_disk.read(0, n), on_disk.labels, strict=True)]
    assert sorted(taken) == sorted(expected)
    assert all(size % batch == 0 for size in sizes[:-1])
    in_order = np.concatenate([rows.features for rows in streamed.in_order()])
    np.testing.assert_array_equal(in_order, on_disk.read(0, n))


def test_no_two_epochs_have_the_same_order():
    on_disk = source(500)
    streamed = Streamed(on_disk, on_disk.labels, "flatten", 1)
    streamed._block, streamed._buffer = 10, 50
    rng = np.random.default_rng(0)
    epochs = [
        np.concatenate([rows.features[order] for rows, order in streamed.shuffled(rng, 32)]) for _ in range(2)
    ]
    assert not np.array_equal(*epochs)
    # rows of many places of the disk meet in the first batch
    places = [int(np.flatnonzero((on_disk.read(0, 500) == row).all(1))[0]) for row in epochs[0][:32]]
    assert len({place // 10 for place in places}) >= 4


@pytest.mark.parametrize(("shape", "pooling"), [((4,), "flatten"), ((2, 2, 4), "avg"), ((2, 2, 4), "max")])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_head_learns_from_disk_what_it_learns_from_memory(monkeypatch, shape, pooling, dtype):
    monkeypatch.setattr(feed, "_BLOCK_BYTES", 64)
    train, held = source(2000, shape, dtype), source(400, shape, dtype, seed=1)
    held_rows = held.read(0, 400)
    if pooling != "flatten":
        for one in (train, held):  # labels that pooled features can tell
            pooled = getattr(one.read(0, len(one)), {"avg": "mean"}.get(pooling, pooling))(axis=(1, 2))
            one.labels = (pooled[:, 0] > np.median(pooled[:, 0])).astype(np.int64)
    head = DenseHead(pooling=pooling, learning_rate=0.02, epochs=12, random_state=0)
    memory = DenseHead(**head.get_params()).fit(train.read(0, 2000), train.labels, (held_rows, held.labels))
    head.fit(train, validation_data=held, max_memory=40_000)
    assert len(train.reads) > 100
    assert memory.score(held_rows, held.labels) > 0.9
    assert abs(head.score(held_rows, held.labels) - memory.score(held_rows, held.labels)) < 0.03
    assert abs(head.history_["val_loss"][-1] - memory.history_["val_loss"][-1]) < 0.03
    np.testing.assert_array_equal(head.predict_proba(held), head.predict_proba(held_rows))


def test_a_split_brings_its_own_labels_and_shape():
    on_disk = source(300)
    head = DenseHead(epochs=3, random_state=0).fit(on_disk)
    assert head.history_["loss"][-1] < head.history_["loss"][0]
    assert head.n_features_in_ == 4


def test_numbers_that_are_no_numbers_are_found_while_reading():
    on_disk = source(300)
    on_disk._features[123, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in the rows"):
        DenseHead(epochs=1).fit(on_disk)


def test_principal_components_need_memory():
    with pytest.raises(TrainingError, match="in memory"):
        DenseHead(epochs=1, pca=2).fit(source(100))


def test_without_validation_data_all_epochs_are_trained_from_disk_and_this_is_said():
    with pytest.warns(UserWarning, match="from features on disk none are held out: all 2 epochs"):
        head = DenseHead(epochs=2, patience=1, learning_rate=1e-9).fit(source(100))
    assert head.n_iter_ == 2


# ---- views -----------------------------------------------------------------------------------------------


class OnDiskInViews(OnDisk):
    """A split whose photos are there in several views; the features are (n, views, ...)."""

    def __init__(self, features, labels):
        super().__init__(features[:, 0], labels)
        self._all, self.views = features, features.shape[1]

    def read_views(self, start, stop):
        return self._all[start:stop].copy()


def in_views(n, views, shape=(4,), seed=0):
    """Features whose first number is the photo and whose second is the view."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, views, *shape)).astype(np.float32)
    features.reshape(n, views, -1)[..., 0] = np.arange(n)[:, None]
    features.reshape(n, views, -1)[..., 1] = np.arange(views)
    return OnDiskInViews(features, rng.integers(0, 2, n))


def feeds_of(on_disk):
    rows = on_disk._all.reshape(-1, *on_disk.shape[1:])
    memory = InMemory(Rows.of(rows, on_disk.labels.repeat(on_disk.views)), on_disk.views)
    return memory, Streamed(on_disk, on_disk.labels, "flatten", 1 << 20)


def taken(feed, rng, batch=16):
    pieces = [(rows.features[order], rows.labels[order]) for rows, order in feed.shuffled(rng, batch)]
    return tuple(np.concatenate(column) for column in zip(*pieces, strict=True))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_epoch_has_every_photo_once_in_a_view_that_is_drawn_anew(streamed):
    on_disk = in_views(60, 4)
    one = feeds_of(on_disk)[streamed]
    if streamed:
        one._block, one._buffer = 7, 21
    rng = np.random.default_rng(0)
    seen = np.zeros((60, 4), int)
    for _ in range(40):
        features, labels = taken(one, rng)
        photos, views = features[:, 0].astype(int), features[:, 1].astype(int)
        assert sorted(photos) == list(range(60))
        assert np.array_equal(labels, on_disk.labels[photos])
        assert len(set(views)) > 1, "views are drawn photo by photo"
        seen[photos, views] += 1
    assert (seen > 0).all(), "in time every view of every photo is seen"
    assert abs(seen.sum(0) - 600).max() < 5 * 21.2
    plain = np.concatenate([rows.features for rows in one.in_order()])
    assert np.array_equal(plain, on_disk.read(0, 60)), "what is measured is the plain photo"


def test_a_split_of_one_block_gives_from_disk_what_it_gives_from_memory():
    memory, streamed = feeds_of(in_views(50, 3))
    for seed in range(3):
        one, other = (taken(feed, np.random.default_rng(seed)) for feed in (memory, streamed))
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def test_one_view_draws_nothing():
    on_disk = in_views(50, 1)
    memory, _ = feeds_of(on_disk)
    (_, order), *_ = memory.shuffled(np.random.default_rng(5), 8)
    assert np.array_equal(order, np.random.default_rng(5).permutation(50))


def test_blocks_of_several_views_take_no_more_memory(monkeypatch):
    monkeypatch.setattr(feed, "_BLOCK_BYTES", 64 * 16)
    assert feeds_of(in_views(500, 1))[1]._block == 64
    assert feeds_of(in_views(500, 4))[1]._block == 16


def test_a_head_learns_from_a_split_in_views_as_from_memory():
    on_disk = in_views(300, 3)
    on_disk._all[..., :2] = 0
    on_disk.labels = (on_disk._all[:, 0, 2] > 0).astype(np.int64)
    on_disk._all[:, 1:, 2] = on_disk._all[:, :1, 2] + 0.1 * on_disk._all[:, 1:, 3]
    on_disk._features = on_disk._all[:, 0]
    head = DenseHead(learning_rate=0.05, epochs=8, early_stopping=False, random_state=0).fit(on_disk)
    rows = on_disk._all.reshape(-1, 4)
    memory = DenseHead(**head.get_params()).fit(rows, on_disk.labels.repeat(3), views=3)
    np.testing.assert_array_equal(head.coefs_[0], memory.coefs_[0])
    assert head.score(on_disk, on_disk.labels) > 0.9


def test_rows_that_are_no_photos_in_so_many_views_are_refused():
    X, y = np.zeros((10, 4), np.float32), np.arange(10) % 2
    with pytest.raises(ValueError, match="views = 4, but X has 10 rows"):
        DenseHead(epochs=1).fit(X, y, views=4)
    with pytest.raises(ValueError, match="y differs among the views"):
        DenseHead(epochs=1).fit(X, y, views=2)
