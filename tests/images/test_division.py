"""The division: right shares, draws that never change, and no photo that moves for another's sake."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import many, put, refusal, splits_of, table_of

from featcache.images.division import divide, uniform
from featcache.images.rows import ImageRow
from featcache.images.source import digest_of
from featcache.images.table import without_broken
from featcache.recipe import DataSettings, SplitShares


def test_shares_are_approximately_right_in_every_class(tmp_path):
    many(tmp_path, {"a": 1500, "b": 500})
    table = table_of(root=tmp_path, split={"train": 0.6, "validation": 0.3, "test": 0.1})
    for label, total in (("a", 1500), ("b", 500)):
        counts = Counter(row.split for row in table.rows if row.label == label)
        for split, share in (("train", 0.6), ("validation", 0.3), ("test", 0.1)):
            # five standard deviations of a binomial
            assert abs(counts[split] - total * share) < 5 * np.sqrt(total * share * (1 - share))


def test_validation_is_drawn_from_train_and_test_from_validation(tmp_path):
    many(tmp_path / "train", {"a": 1000, "b": 1000})
    table = table_of(root=tmp_path, validation_from_train=0.5, test_from_validation=0.5)
    counts = Counter(row.split for row in table.rows)
    # were the two draws the same numbers, test would take all of validation
    assert abs(counts["train"] - 1000) < 120
    assert abs(counts["validation"] - 500) < 100
    assert abs(counts["test"] - 500) < 100


def test_only_what_is_missing_is_drawn(tmp_path):
    many(tmp_path / "train", {"a": 50, "b": 50})
    many(tmp_path / "test", {"a": 5, "b": 5})
    for label in "ab":  # other bytes than in train
        for file in (tmp_path / "test" / label).iterdir():
            file.write_text(f"test {label} {file.name}")
    table = table_of(root=tmp_path, test_from_validation=0.5)
    assert {row.path for row in table.rows if row.split == "test"} == {
        str(tmp_path / "test" / label / f"{n:04d}.jpg") for label in "ab" for n in range(5)
    }
    assert 0 < sum(row.split == "validation" for row in table.rows) < 50


def test_a_given_validation_stays_and_gives_test(tmp_path):
    many(tmp_path / "train", {"a": 50, "b": 50})
    put(tmp_path, *(f"val/{label}/{n}" for label in "ab" for n in range(50)))
    table = table_of(root=tmp_path, test_from_validation=0.5)
    assert sum(row.split == "train" for row in table.rows) == 100
    assert all("/val/" in row.path for row in table.rows if row.split != "train")
    assert 20 < sum(row.split == "test" for row in table.rows) < 80


def test_test_can_be_drawn_from_the_validation_of_an_undivided_folder(tmp_path):
    table = table_of(root=many(tmp_path, {"a": 200, "b": 200}), test_from_validation=0.5)
    counts = Counter(row.split for row in table.rows)
    assert abs(counts["test"] - 40) < 30
    assert abs(counts["validation"] - 40) < 30


def test_the_seed_changes_the_draw_and_nothing_else_does(tmp_path):
    many(tmp_path / "one", {"a": 100, "b": 100})
    first = splits_of(table_of(root=tmp_path / "one"))
    assert splits_of(table_of(root=tmp_path / "one")) == first
    assert splits_of(table_of(root=tmp_path / "one", seed=1)) != first
    # renamed, relabelled, moved
    (tmp_path / "two").mkdir()
    (tmp_path / "one/a").rename(tmp_path / "two/zebra")
    (tmp_path / "one/b").rename(tmp_path / "two/a")
    for file in list((tmp_path / "two/a").iterdir()):
        file.rename(file.with_name("new " + file.name))
    assert splits_of(table_of(root=tmp_path / "two")) == first


def test_the_draw_never_changes_between_versions():
    """Fixed numbers: another draw would silently move photos between the splits of everybody's data."""
    assert uniform(digest_of(b""), 0, "split") == pytest.approx(0.9889540817062716, abs=1e-12)
    assert uniform(digest_of(b""), 1, "split") == pytest.approx(0.6296510430668789, abs=1e-12)
    assert uniform(digest_of(b""), 0, "test from validation") == pytest.approx(0.7937961079288982, abs=1e-12)


digests = st.binary(min_size=32, max_size=32)


@given(digest=digests, seed=st.integers(0, 2**63), purpose=st.text(max_size=9))
def test_uniform_stays_below_one(digest, seed, purpose):
    assert 0.0 <= uniform(digest, seed, purpose) < 1.0


def test_uniform_is_uniform_and_purposes_are_independent():
    drawn = np.array([[uniform(digest_of(b"%d" % n), 0, p) for p in ("split", "other")] for n in range(4000)])
    for column in drawn.T:
        deciles = np.histogram(column, bins=10, range=(0, 1))[0]
        assert np.abs(deciles - 400).max() < 100
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.08


SHARES = SplitShares(train=0.5, validation=0.3, test=0.2)


def rows_of(photos: Iterable[tuple[int, str]], split: str = "") -> list[ImageRow]:
    return [ImageRow(f"{n}-{label}", label, split, digest_of(b"%d" % n)) for n, label in photos]


def drawn(photos: Iterable[tuple[int, str]]) -> dict[tuple[bytes, str], str]:
    rows = divide(rows_of(photos), {""}, DataSettings(root="x", split=SHARES))
    return {(row.digest, row.label): row.split for row in rows}


labelled = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from("abcde")), max_size=40, unique=True)


@settings(deadline=None)
@given(photos=labelled)
def test_train_has_a_photo_of_every_class_and_copies_stay_together(photos):
    splits = drawn(photos)
    assert {label for (_, label), split in splits.items() if split == "train"} == {one for _, one in photos}
    by_digest = defaultdict(set)
    for (digest, _), split in splits.items():
        by_digest[digest].add(split)
    assert all(len(found) == 1 for found in by_digest.values())


@settings(deadline=None)
@given(photos=labelled, more=labelled)
def test_adding_photos_moves_none_but_those_that_train_lacked(photos, more):
    before, after = drawn(photos), drawn([*photos, *(one for one in more if one not in photos)])
    for photo, split in before.items():
        assert {split, after[photo]} <= {draw_of(photo[0]), "train"}
    # a class that was not added to, and shares no photo with one that was, stays as it is
    touched = {label for _, label in more}
    shared = {digest_of(b"%d" % n) for n, _ in more}
    for (digest, label), split in before.items():
        if label not in touched and digest not in shared and not copies_in(photos, digest):
            assert after[digest, label] == split


def draw_of(digest: bytes) -> str:
    number = uniform(digest, 0, "split")
    return "test" if number < 0.2 else "validation" if number < 0.5 else "train"


def copies_in(photos: Iterable[tuple[int, str]], digest: bytes) -> bool:
    return sum(digest_of(b"%d" % n) == digest for n, _ in photos) > 1


@settings(deadline=None)
@given(photos=labelled, seed=st.integers(0, 1000))
def test_the_photo_of_the_lowest_draw_goes_back_to_train(photos, seed):
    """For a split of its own: what is drawn from train goes back, what was given stays."""
    data = DataSettings(train="x", validation_from_train=0.9, test_from_validation=0.5, seed=seed)
    given_test = rows_of([(-1, "a")], "test")
    rows = divide([*rows_of(photos, "train"), *given_test], {"train", "test"}, data)
    assert rows[-1].split == "test"
    for label in {label for _, label in photos}:
        of_class = [row for row in rows[:-1] if row.label == label]
        there = [row for row in of_class if row.split == "train"]
        assert there
        if all(uniform(row.digest, seed, "validation from train") < 0.9 for row in of_class):
            lowest = min(of_class, key=lambda row: uniform(row.digest, seed, "train"))
            assert lowest.split == "train"


def test_a_given_validation_gives_nothing_back_to_train():
    data = DataSettings(train="x", validation="y", test_from_validation=0.5)
    photos = [(n, "b") for n in range(20)]
    rows = divide(
        [*rows_of([(99, "a")], "train"), *rows_of(photos, "validation")], {"train", "validation"}, data
    )
    assert {row.split for row in rows[1:]} == {"validation", "test"}


def test_sixty_classes_of_two_photos_have_one_in_train(tmp_path):
    names = [f"id{n:03}" for n in range(60)]
    table = table_of(root=many(tmp_path, dict.fromkeys(names, 2)))
    assert {row.label for row in table.rows if row.split == "train"} == set(names)
    assert [finding.kind for finding in table.findings] == ["class_missing"]


def first_seed(wanted) -> int:
    """Find a seed for which the draw does what a test needs."""
    return next(seed for seed in range(10_000) if wanted(seed))


def in_validation(content: str, seed: int) -> bool:
    return uniform(digest_of(content.encode()), seed, "split") < 0.2


def test_a_class_without_photos_in_a_drawn_split_is_pointed_out(tmp_path):
    put(tmp_path, "a/1", "a/2", "b/1", "b/2")
    seed = first_seed(lambda s: [in_validation(c, s) for c in ("a/1", "a/2", "b/1", "b/2")] == [1, 0, 0, 0])
    (warning,) = table_of(root=tmp_path, seed=seed).warnings
    assert "validation has no photo of 'b'" in warning
    assert "data.seed" in warning


def test_a_draw_leaves_train_a_photo_of_every_class(tmp_path):
    put(tmp_path, "a/1", "a/2", "b/1")
    seed = first_seed(lambda s: [in_validation(c, s) for c in ("a/1", "a/2", "b/1")] == [0, 1, 1])
    table = table_of(root=tmp_path, seed=seed)
    assert [(row.label, row.split) for row in table.rows] == [
        ("a", "train"),
        ("b", "train"),
        ("a", "validation"),
    ]
    assert "validation has no photo of 'b'" in table.warnings[0]


def test_a_class_of_which_the_drawn_photo_is_broken_gets_another_one(tmp_path):
    table = table_of(
        root=many(tmp_path, {"a": 4, "b": 40}), split={"train": 0.5, "validation": 0.5, "test": 0.0}
    )
    broken = {row.digest for row in table.rows if row.label == "a" and row.split == "train"}
    kept = without_broken(table, broken, seed=0)
    (moved,) = set(kept.rows) - set(table.rows)
    rest = [row for row in table.rows if row.label == "a" and row.digest not in broken]
    assert moved.digest == min(rest, key=lambda row: uniform(row.digest, 0, "train")).digest
    assert [finding.kind for finding in kept.findings] == ["broken_in_train"]
    assert kept.rows.index(moved) < len([row for row in kept.rows if row.split == "train"])
    assert without_broken(table, set(), seed=0) is table


def test_with_folds_nothing_is_asked_of_validation(tmp_path):
    put(tmp_path, "a/1", "b/1")
    seed = first_seed(lambda s: not in_validation("a/1", s) and not in_validation("b/1", s))
    table = table_of(root=tmp_path, seed=seed, folds=2)
    assert [row.split for row in table.rows] == ["train", "train"]
    assert table.warnings == ()


def test_with_folds_a_class_may_be_in_validation_only(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/c/3")
    assert table_of(root=tmp_path, folds=2).classes == ("a", "b", "c")
    assert "train lacks" in refusal(root=tmp_path)


def test_an_empty_drawn_split_is_refused(tmp_path):
    put(tmp_path, "a/1", "b/1")
    seed = first_seed(lambda s: not in_validation("a/1", s) and not in_validation("b/1", s))
    assert "validation would be empty" in refusal(root=tmp_path, seed=seed)


def test_a_split_with_share_zero_may_be_empty(tmp_path):
    many(tmp_path, {"a": 3, "b": 3})
    table = table_of(root=tmp_path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert {row.split for row in table.rows} == {"train"}
    assert table.warnings == ()
