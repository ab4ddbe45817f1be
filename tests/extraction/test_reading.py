"""Photos are read once, and those that have not changed are not read again."""

import os
import shutil
from collections import Counter
from pathlib import Path

import h5py
import pytest
from conftest import make_photo, make_photos, tiny_recipe

from featcache import featurize
from featcache.errors import ImageError, StoreError
from featcache.extraction import planning
from featcache.extraction.stage import extract
from featcache.images import index, table
from featcache.report import facts
from featcache.reporter import SILENT
from featcache.store.base_store import Store
from featcache.store.format import INDEX_FILE


class Notes:
    """A reporter that keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def advance(self, stage, done, total):
        pass


@pytest.fixture
def reads(monkeypatch):
    """Count how often each file's bytes are read."""
    counts = Counter()

    def counted(function):
        def read(path):
            counts[Path(path).name] += 1
            return function(path)

        return read

    monkeypatch.setattr(featurize, "read_with_state", counted(featurize.read_with_state))
    monkeypatch.setattr(table, "digest_photo", counted(table.digest_photo))
    return counts


@pytest.fixture
def settled(monkeypatch):
    """Let every file count as old enough, so that a test need not wait."""
    monkeypatch.setattr(index, "MARGIN_NS", -(10**12))


def test_the_first_extraction_reads_each_photo_once_and_the_next_none(recipe, photos, reads, settled):
    first = extract(recipe)
    names = Counter(path.name for path in photos.rglob("*.png"))
    assert (first.computed, reads) == (24, names)
    reads.clear()
    again = extract(recipe)
    assert (again.computed, again.reused, reads) == (0, 24, {})


def test_training_photos_with_views_are_read_once(recipe, photos, reads):
    views = {"augment": {"views": 5, "flip": True, "rotation": 0.1}}
    result = extract(type(recipe).parse({**recipe.model_dump(exclude={"augment"}), **views}))
    assert result.rows > result.photos
    assert set(reads.values()) == {2}, "each name stands in both classes"


def test_all_photos_are_read_again_when_asked(recipe, reads, settled):
    extract(recipe)
    reads.clear()
    data = recipe.data.model_copy(update={"rehash": True})
    again = extract(recipe.model_copy(update={"data": data}))
    assert (again.computed, sum(reads.values())) == (0, 24)


def test_only_a_new_photo_is_read(recipe, photos, reads, settled):
    extract(recipe)
    reads.clear()
    make_photo(photos / "cat" / "new.png", seed=55_555)
    assert (extract(recipe).computed, reads) == (1, {"new.png": 1})


def test_photos_in_other_bytes_of_the_same_size_and_times_are_noticed(recipe, photos, settled):
    for photo in photos.rglob("*.png"):
        photo.write_bytes(photo.read_bytes().ljust(10_000, b"\0"))
    extract(recipe)
    touched, swapped, other = (photos / "cat" / f"00{number}.png" for number in range(3))
    times = touched.stat()
    make_photo(photos / "new.png", seed=99_999)
    content = (photos / "new.png").read_bytes().ljust(10_000, b"\0")
    (photos / "new.png").unlink()
    with touched.open("r+b") as file:
        file.write(content)
    os.utime(touched, ns=(times.st_atime_ns, times.st_mtime_ns))
    aside = photos / "aside"
    swapped.rename(aside)
    other.rename(swapped)
    aside.rename(other)
    result = extract(recipe)
    assert result.computed == 1
    with result.open() as features:
        digests = {path: digest for split in features.splits for path, digest in _digests(features[split])}
    for path in (touched, swapped, other):
        assert digests[str(path)] == table.digest_photo(str(path))[0]


def _digests(split):
    return zip(split.paths, map(bytes, split.digests), strict=True)


def test_a_photo_replaced_in_the_second_of_its_reading_is_noticed(recipe, photos):
    extract(recipe)
    make_photo(photos / "cat" / "003.png", seed=77_777)
    assert extract(recipe).computed == 1


def test_a_lost_index_costs_a_reading_and_no_extraction(recipe, reads, settled):
    extract(recipe)
    for file in recipe.cache.glob(f"{INDEX_FILE}*"):
        file.unlink()
    reads.clear()
    notes = Notes()
    result = extract(recipe, notes)
    assert (result.computed, result.reused, sum(reads.values())) == (0, 24, 24)
    assert any("0 are in the store, at most 24 to compute" in note for note in notes.notes)


def test_what_is_announced_is_what_the_index_knows(recipe, photos, settled):
    extract(recipe)
    make_photo(photos / "cat" / "new.png", seed=55_555)
    notes = Notes()
    extract(recipe, notes)
    assert any("24 are in the store, at most 1 to compute" in note for note in notes.notes)


def test_a_full_disk_stops_nothing_that_is_in_the_store_already(recipe, reads, monkeypatch):
    extract(recipe)
    monkeypatch.setattr(Store, "free_bytes", lambda self: 0)
    reads.clear()
    assert extract(recipe).computed == 0
    assert sum(reads.values()) == 24
    shutil.rmtree(recipe.cache)
    with pytest.raises(StoreError, match="24 rows need"):
        extract(recipe)


def test_a_photo_that_fails_while_its_digest_is_read_does_not_take_the_others(recipe, photos, monkeypatch):
    extract(recipe)
    monkeypatch.setattr(Store, "free_bytes", lambda self: 0)
    whole = table.digest_photo

    def failing(path):
        if path.endswith("cat/003.png"):
            raise ImageError("cannot be read: input/output error")
        return whole(path)

    monkeypatch.setattr(table, "digest_photo", failing)
    result = extract(recipe)
    assert (result.rows, result.computed) == (23, 0)
    assert result.skipped == ((str(photos / "cat" / "003.png"), "cannot be read: input/output error"),)


def test_copies_among_new_photos_are_computed_once(tmp_path, tiny_store):
    photos = make_photos(tmp_path / "photos")
    for number in range(20):
        shutil.copy(photos / "cat" / "000.png", photos / "cat" / f"copy{number}.png")
    result = extract(tiny_recipe(tmp_path, photos))
    assert (result.rows, result.computed) == (44, 24)


def test_rows_of_a_split_lie_together_although_splits_are_drawn_while_photos_are_read(recipe):
    with h5py.File(extract(recipe).features_file) as file:
        splits = [file[split]["row"][:].tolist() for split in ("train", "validation")]
    assert splits[0] + splits[1] == list(range(24))


def test_info_does_not_read_many_bytes(recipe, photos, reads, monkeypatch, settled):
    make_photo(photos / "beside.png", seed=44_444)
    monkeypatch.setattr(planning, "_READ_FOR_INFO_BYTES", 1000)
    found = facts.of_recipe(recipe, SILENT)
    assert (found["unread"], found["to_compute"], found["photos"]) == (24, 24, {"all": 24})
    assert "were not read yet" in found["note"]
    assert [finding["kind"] for finding in found["findings"]] == ["beside_classes"]
    assert not reads
    extract(recipe)
    reads.clear()
    found = facts.of_recipe(recipe, SILENT)
    assert "unread" not in found
    assert (found["in_store"], found["to_compute"], sum(found["photos"].values())) == (24, 0, 24)
    assert not reads


def test_an_unreadable_photo_does_not_cost_a_reading_of_the_others(recipe, photos, reads, settled):
    (photos / "cat" / "broken.png").symlink_to(photos / "nowhere")
    (photos / "dog" / "empty.png").write_bytes(b"")
    first = extract(recipe)
    assert {reason for _, reason in first.skipped} == {
        "cannot be read: a link to a file that does not exist",
        "empty file",
    }
    reads.clear()
    again = extract(recipe)
    assert again.skipped == first.skipped
    assert reads == {"empty.png": 1}
