"""Groups: no draw divides one, and what is wrong with them is said before any photo is read."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import kinds, manifest, put, refusal, table_of

from featcache.errors import RecipeError
from featcache.images.division import divide, uniform
from featcache.images.groups import draw_key, with_joined_groups
from featcache.images.rows import ImageRow, Notes
from featcache.images.source import digest_of
from featcache.images.table import without_broken
from featcache.recipe import DataSettings, Recipe, SplitShares

HALVES = {"train": 0.5, "validation": 0.5, "test": 0.0}
ALL_TRAIN = {"train": 1.0, "validation": 0.0, "test": 0.0}

Photo = tuple[int, str, str]
"""Number of its bytes, label, group."""

GROUPS = ["", *"PQRSTUVWXYZ"]


def _photo(code: int) -> Photo:
    number, code = divmod(code, 3 * len(GROUPS))
    return number, "abc"[code % 3], GROUPS[code // 3]


# one number for a photo: lists of tuples take Hypothesis several times as long
photos_of_groups = st.lists(
    st.integers(0, 40 * 3 * len(GROUPS) - 1), min_size=1, max_size=24, unique=True
).map(lambda codes: [_photo(code) for code in codes])


def divided(photos: list[Photo], data: DataSettings, given: str = "") -> dict[Photo, ImageRow]:
    rows = [
        ImageRow(f"{n}-{label}-{group}", label, given, digest_of(b"%d" % n), group)
        for n, label, group in photos
    ]
    return dict(zip(photos, divide(with_joined_groups(rows, Notes()), {given}, data), strict=True))


def settings_of(seed: int, given: str) -> DataSettings:
    if given:
        return DataSettings(train="x", validation_from_train=0.4, test_from_validation=0.5, seed=seed)
    return DataSettings(root="x", split=SplitShares(train=0.4, validation=0.3, test=0.3), seed=seed)


@settings(deadline=None, max_examples=1000)
@given(photos=photos_of_groups, seed=st.integers(0, 99), given_split=st.sampled_from(["", "train"]))
def test_no_draw_divides_a_group_or_loses_a_class(photos, seed, given_split):
    drawn = divided(photos, settings_of(seed, given_split), given_split)
    splits = defaultdict(set)
    for (number, _, group), row in drawn.items():
        splits["photo", number].add(row.split)
        splits["group", group or number].add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {row.label for row in drawn.values() if row.split == "train"} == {label for _, label, _ in photos}


@settings(deadline=None, max_examples=300)
@given(photos=photos_of_groups, more=photos_of_groups, seed=st.integers(0, 99))
def test_added_photos_move_no_group_but_those_that_train_lacked(photos, more, seed):
    """A group moves only if equal photos join it to another one, or train had nothing else of a class."""
    data = settings_of(seed, "")
    before = divided(photos, data)
    after = divided([*photos, *(one for one in more if one not in photos)], data)
    for photo, row in before.items():
        new = after[photo]
        if new.group == row.group:
            key = draw_key(row.group, row.digest)
            number = uniform(key, seed, "split")
            assert {row.split, new.split} <= {_split(number), "train"}


def _split(number: float) -> str:
    return "test" if number < 0.3 else "validation" if number < 0.6 else "train"


def test_the_draw_of_a_group_never_changes_between_versions():
    """Fixed numbers: another draw would silently move groups between the splits of everybody's data."""
    assert draw_key("", b"x" * 32) == b"x" * 32
    assert draw_key("Zo\u00eb \udcff", b"x" * 32) == b"group:Zo\xc3\xab \xff"
    assert uniform(draw_key("A", b""), 0, "split") == pytest.approx(0.41834976625107245, abs=1e-12)


def test_folders_in_class_folders_are_groups(tmp_path):
    put(tmp_path, *(f"{label}/{scene}/{n}" for label in "ab" for scene in ("s1", "s2") for n in range(3)))
    put(tmp_path, "a/s1/deeper/4", "a/alone")
    table = table_of(root=tmp_path, group="folder", split=ALL_TRAIN)
    assert {row.group for row in table.rows} == {"s1", "s2", ""}
    assert [row.path.rpartition("/a/")[2] for row in table.rows if not row.group] == ["alone"]
    assert [row.group for row in table.rows if row.path.endswith("deeper/4")] == ["s1"]
    assert kinds(table) == ["not_grouped"]
    # without groups nobody can tell whether a and b or s1 and s2 are the classes
    (tmp_path / "a/alone").unlink()
    assert "unclear which are the classes" in refusal(root=tmp_path)


def test_folders_of_given_splits_are_groups(tmp_path):
    put(
        tmp_path,
        *(f"{split}/{label}/{split}{n}/x" for split in ("train", "val") for label in "ab" for n in "12"),
    )
    table = table_of(root=tmp_path, group="folder")
    assert {(row.split, row.group) for row in table.rows} == {
        (split, f"{name}{n}") for split, name in (("train", "train"), ("validation", "val")) for n in "12"
    }
    separate = table_of(train=tmp_path / "train", validation=tmp_path / "val", group="folder")
    assert [row.group for row in separate.rows] == [row.group for row in table.rows]


def test_a_pattern_finds_groups_in_file_names(tmp_path):
    put(
        tmp_path,
        *(f"{label}/{label}_1_{n}.jpg" for label in "ab" for n in range(3)),
        "a/a_2_0.jpg",
        "b/b_3_.jpg",
    )
    put(tmp_path, "a/other.png")
    table = table_of(root=tmp_path, group=r"(.*)_\d+\.jpg", split=ALL_TRAIN)
    assert {row.group for row in table.rows} == {"a_1", "a_2", "b_1", ""}
    assert [row.path.rpartition("/")[2] for row in table.rows if not row.group] == ["other.png", "b_3_.jpg"]
    assert kinds(table) == ["not_grouped"]
    assert "2 of 9 photos have no group" in table.warnings[0]
    # found anywhere in the name, and an empty text is no group
    table = table_of(root=tmp_path, group="^._([23]?)", split=ALL_TRAIN)
    assert {row.group for row in table.rows} == {"", "2", "3"}


def test_a_pattern_without_a_match_is_refused(tmp_path):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    assert "is found in no file name, for example not in '1.jpg'" in refusal(root=tmp_path, group="x(.)")


def test_class_folders_without_folders_are_refused(tmp_path):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    assert "no class folder holds a folder" in refusal(root=tmp_path, group="folder")


def test_an_empty_column_is_pointed_out(tmp_path):
    put(tmp_path, "1", "2")
    file = manifest(tmp_path, "path,label,group\n1,a,\n2,b, \n")
    (warning,) = table_of(manifest=file, split=ALL_TRAIN).warnings
    assert "the column group of" in warning


def test_a_pattern_beside_a_column_is_refused(tmp_path):
    put(tmp_path, "1", "2")
    file = manifest(tmp_path, "path,label,group\n1,a,x\n2,b,y\n")
    assert "has a column group, and data.group = '(.)' is given" in refusal(manifest=file, group="(.)")


@pytest.mark.parametrize(
    ("group", "complaint"),
    [
        ("(a", "not a regular expression"),
        ("abc", "has 0 groups in parentheses"),
        ("", "has 0 groups"),
        ("(a)(b)", "has 2 groups"),
    ],
)
def test_impossible_patterns_are_refused(group, complaint):
    with pytest.raises(RecipeError, match=complaint):
        Recipe.parse({"data": {"root": "x", "group": group}})


def test_a_manifest_has_no_class_folders():
    with pytest.raises(RecipeError, match="goes with class folders"):
        Recipe.parse({"data": {"manifest": "x.csv", "group": "folder"}})


def in_two_splits(folder) -> dict:
    put(folder, *"1234")
    lines = ["1,a,train,x", "2,b,train,y", "3,a,validation,x", "4,b,validation,z"]
    return {"manifest": manifest(folder, "\n".join(["path,label,split,group", *lines]))}


def test_a_group_in_two_splits_is_a_finding_and_refused_when_strict(tmp_path):
    data = in_two_splits(tmp_path)
    table = table_of(**data)
    (finding,) = table.findings
    assert finding.kind == "groups_across_splits"
    assert [path.rpartition("/")[2] for path in finding.photos] == ["1", "3"]
    assert "'x' in train and validation" in finding.text
    refused = refusal(**data, strict=True)
    assert "'x' in train and validation" in refused
    assert "--strict" in refused


def test_with_folds_train_and_validation_share_groups(tmp_path):
    assert kinds(table_of(**in_two_splits(tmp_path), folds=2, strict=True)) == []


def test_equal_photos_join_their_groups(tmp_path):
    put(tmp_path, *"12345")
    for copy in "67":
        (tmp_path / copy).write_text("1")
    lines = ["1,a,z", "2,a,z", "6,a,y", "3,a,y", "7,a,", "4,b,u", "5,b,"]
    table = table_of(manifest=manifest(tmp_path, "path,label,group\n" + "\n".join(lines)), split=ALL_TRAIN)
    assert {row.path.rpartition("/")[2]: row.group for row in table.rows} == dict(
        zip("1263745", [*"yyyyyu", ""], strict=True)
    )
    assert kinds(table) == ["not_grouped", "joined_groups"]
    assert "2 in all, for example 'y', 'z'" in table.warnings[1]


def test_empty_files_join_nothing(tmp_path):
    put(tmp_path, *"12")
    (tmp_path / "3").touch()
    (tmp_path / "4").touch()
    text = "path,label,group\n1,a,x\n3,a,x\n2,b,y\n4,b,y\n"
    table = table_of(manifest=manifest(tmp_path, text), split=ALL_TRAIN)
    assert {row.group for row in table.rows} == {"x", "y"}


def test_a_class_whose_photos_in_train_are_broken_gets_a_whole_group(tmp_path):
    groups = [f"g{n}" for n in range(6)]
    put(tmp_path, *(f"{label}/{label}{group}_{n}" for label in "ab" for group in groups for n in range(3)))
    table = table_of(root=tmp_path, group="(.*)_", split=HALVES)
    broken = {row.digest for row in table.rows if row.label == "a" and row.split == "train"}
    kept = without_broken(table, broken, seed=0)
    moved = set(kept.rows) - set(table.rows)
    assert [finding.kind for finding in kept.findings] == ["broken_in_train"]
    assert len(moved) == 3
    assert len({row.group for row in moved}) == 1
