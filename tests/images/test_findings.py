"""Findings are data: the same in the table, in JSON and in the feature file."""

import shutil

from conftest import make_photos, tiny_recipe
from small_sets import table_of

import featcache as fc


def test_findings_name_their_kind_and_their_photos(tmp_path):
    photos = make_photos(tmp_path / "photos")
    shutil.copy(photos / "cat" / "001.png", photos / "dog" / "copy.png")
    shutil.copy(photos / "cat" / "002.png", photos / "loose.png")
    table = table_of(root=photos)
    found = {finding.kind: finding for finding in table.findings}
    assert found["beside_classes"].photos == (str(photos / "loose.png"),)
    assert set(found["copies_across_labels"].photos) == {
        str(photos / "cat" / "001.png"),
        str(photos / "dog" / "copy.png"),
    }
    assert table.warnings == tuple(finding.text for finding in table.findings)


def test_findings_are_kept_in_the_feature_file_and_in_a_packed_one(tmp_path, tiny_store):
    photos = make_photos(tmp_path / "photos")
    shutil.copy(photos / "cat" / "001.png", photos / "dog" / "copy.png")
    shutil.copytree(tiny_store, tmp_path / "cache")
    extraction = fc.extract(tiny_recipe(tmp_path, photos))
    (finding,) = extraction.to_json()["findings"]
    assert (finding["kind"], finding["count"]) == ("copies_across_labels", 2)
    with extraction.open() as features:
        assert features.findings == [finding]
        fc.pack(features, tmp_path / "one.h5")
    with fc.Features(tmp_path / "one.h5") as packed:
        assert packed.findings == [finding]
