"""The division: right shares, draws that never change, and no photo that moves for another's sake."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import manifest, many, put, refusal, splits_of, table_of

from featcache.images.division import uniform
from featcache.images.source import digest_of


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


contents = st.lists(st.integers(0, 10_000), min_size=30, max_size=60, unique=True)


@settings(max_examples=25, deadline=None)
@given(first=contents, more=contents, data=st.data())
def test_adding_photos_moves_no_other_and_copies_stay_together(tmp_path_factory, first, more, data):
    folder = tmp_path_factory.mktemp("photos")
    lines = [(f"{n}", data.draw(st.sampled_from("ab"), label="class")) for n in first]
    before = drawn_by_manifest(folder, [*lines, ("anchor-a", "a"), ("anchor-b", "b")])
    lines += [(f"{n}", data.draw(st.sampled_from("abc"), label="class")) for n in more]
    lines += [(f"{n}", "a") for n in first]
    after = drawn_by_manifest(folder, [*lines, ("anchor-a", "a"), ("anchor-b", "b"), ("anchor-c", "c")])
    for content, splits in after.items():
        assert len(splits) == 1  # a copy never stands on both sides
        assert before.get(content, splits) == splits


def drawn_by_manifest(folder: Path, photos: list[tuple[str, str]]) -> dict[bytes, set[str]]:
    """Write files of the given content and label, and return the splits that each content fell into."""
    rows = []
    for number, (content, label) in enumerate(photos):
        (folder / f"{number}.jpg").write_text(content)
        rows.append(f"{number}.jpg,{label}")
    drawn: dict[bytes, set[str]] = {}
    shares = {"train": 0.5, "validation": 0.3, "test": 0.2}
    for row in table_of(manifest=manifest(folder, "path,label\n" + "\n".join(rows)), split=shares).rows:
        drawn.setdefault(row.digest, set()).add(row.split)
    return drawn


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


def test_a_draw_that_takes_a_whole_class_out_of_train_is_refused(tmp_path):
    put(tmp_path, "a/1", "a/2", "b/1")
    seed = first_seed(lambda s: [in_validation(c, s) for c in ("a/1", "a/2", "b/1")] == [0, 0, 1])
    assert "train has no photo of 'b'" in refusal(root=tmp_path, seed=seed)


def test_an_empty_drawn_split_is_refused(tmp_path):
    put(tmp_path, "a/1", "b/1")
    seed = first_seed(lambda s: not in_validation("a/1", s) and not in_validation("b/1", s))
    assert "validation would be empty" in refusal(root=tmp_path, seed=seed)


def test_a_split_with_share_zero_may_be_empty(tmp_path):
    many(tmp_path, {"a": 3, "b": 3})
    table = table_of(root=tmp_path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert {row.split for row in table.rows} == {"train"}
    assert table.warnings == ()
