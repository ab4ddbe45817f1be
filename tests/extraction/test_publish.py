"""What is left of the photos after decoding: which classes and splits must have some."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import make_photos, tiny_recipe

from featcache.errors import DataError
from featcache.extraction.compute import Extracted
from featcache.extraction.publish import check_rows
from featcache.extraction.stage import extract
from featcache.images.division import uniform
from featcache.images.rows import ImageRow, ImageTable
from featcache.images.source import digest_of
from featcache.recipe import AugmentSettings, DataSettings
from featcache.store.plan import Key

ROWS = [("a1", "a", "train"), ("b1", "b", "train"), ("a2", "a", "validation"), ("b2", "b", "validation")]
TABLE = ImageTable(
    tuple(ImageRow(name, label, split, name.encode()) for name, label, split in ROWS), ("a", "b")
)


def findings(*broken: str, **data) -> list[str]:
    extracted = Extracted({}, failures={Key(name.encode(), 0): "broken" for name in broken})
    return [finding.text for finding in check_rows(TABLE, extracted, [], DataSettings(root="x", **data))]


def test_a_class_that_is_not_scored_is_a_finding():
    assert findings() == []
    (text,) = findings("b2")
    assert "validation has no readable photo of 'b'" in text


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (["a2", "b2"], "validation has no readable photo"),
        (["b1"], "class 'b' has no readable photo in train"),
    ],
)
def test_train_needs_every_class_and_validation_one(broken, message):
    with pytest.raises(DataError, match=message):
        findings(*broken)


def test_with_folds_validation_is_learned_from():
    assert findings("b1", folds=2) == []
    assert findings("a2", "b2", folds=2) == []
    with pytest.raises(DataError, match="'b' has no readable photo in train"):
        findings("b1", "b2", folds=2)
    with pytest.raises(DataError, match="train has no readable photo"):
        findings("a1", "b1", folds=2)


def test_a_readable_photo_takes_the_place_of_a_broken_one_in_train_with_all_its_views(tmp_path, tiny_store):
    shutil.copytree(tiny_store, tmp_path / "cache")
    photos = make_photos(tmp_path / "photos")
    recipe = tiny_recipe(tmp_path, photos).model_copy(
        update={"augment": AugmentSettings(views=2, flip=True, rotation=0.1)}
    )
    for path in (photos / "cat").iterdir():
        if uniform(digest_of(path.read_bytes()), 0, "split") >= 0.2:  # drawn for train
            path.unlink()
    left = sorted((photos / "cat").iterdir())
    assert left
    contents = (b"broken %d" % n for n in range(100))
    broken = photos / "cat" / "broken.png"
    broken.write_bytes(next(one for one in contents if uniform(digest_of(one), 0, "split") >= 0.2))
    result = extract(recipe)
    with result.open() as features:
        cats = [path for path in features["train"].paths if "/cat/" in path]
        assert len(cats) == 1
        assert Path(cats[0]) in left
        assert features["train"].load_views()[0].shape[0] == 2 * len(features["train"])
    assert str(broken) in dict(result.skipped)
    assert "broken_in_train" in [finding.kind for finding in result.findings]


def test_a_drawn_split_that_gave_all_its_photos_to_train_is_refused():
    rows = tuple(row for row in TABLE.rows if row.split == "train")
    table = ImageTable(rows, TABLE.classes, drawn=("validation",))
    with pytest.raises(DataError, match="validation has no readable photo"):
        check_rows(table, Extracted({}), [], DataSettings(root="x"))
    assert check_rows(table, Extracted({}), [], DataSettings(root="x", folds=2)) == []


def test_the_feature_file_has_groups_and_weights_of_the_photos(tmp_path, tiny_store):
    shutil.copytree(tiny_store, tmp_path / "cache")
    photos = make_photos(tmp_path / "photos")
    files = [path for label in ("cat", "dog") for path in sorted((photos / label).iterdir())]
    lines = [f"{file},{file.parent.name},g{n % 5},{n % 3}" for n, file in enumerate(files)]
    assert len(lines) > 15
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group,weight", *lines]))
    recipe = tiny_recipe(tmp_path, photos)
    plain = extract(recipe)
    with plain.open() as features:
        assert not features["train"].has_groups
    grouped = recipe.model_copy(update={"data": DataSettings(manifest=tmp_path / "list.csv")})
    result = extract(grouped)
    assert result.computed == 0
    known = {str(file): (f"g{n % 5}", n % 3) for n, file in enumerate(files)}
    with result.open() as features:
        assert sum(len(features[split]) for split in features.splits) == len(files) - -(-len(files) // 3)
        sides = [set(features[split].groups.tolist()) for split in ("train", "validation")]
        assert not sides[0] & sides[1]
        for split in features.splits:
            one = features[split]
            found = zip(one.paths, one.groups.tolist(), one.weights.tolist(), strict=True)
            assert all(known[path] == (features.groups[group], weight) for path, group, weight in found)
