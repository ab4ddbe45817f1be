"""Labels: spellings of one class, and labels that hold several names."""

from __future__ import annotations

from small_sets import kinds, manifest, many, put, table_of

ALL_TRAIN = {"train": 1.0, "validation": 0.0, "test": 0.0}


def test_spellings_in_blanks_and_unicode_are_one_class(tmp_path):
    many(tmp_path, {"caf\u00e9  noir": 2, "cafe\u0301 noir": 3, "tea": 2})
    table = table_of(root=tmp_path, split=ALL_TRAIN)
    assert table.classes == ("caf\u00e9 noir", "tea")
    assert len(table.rows) == 7
    (finding,) = table.findings
    assert finding.kind == "similar_labels"
    assert "2 spellings" in finding.text
    assert "5 photos" in finding.text


def test_a_single_spelling_stays_as_it_is(tmp_path):
    table = table_of(root=many(tmp_path, {"cafe\u0301": 2, "a  b": 2}), split=ALL_TRAIN)
    assert set(table.classes) == {"cafe\u0301", "a  b"}
    assert table.warnings == ()


def test_labels_that_differ_in_case_are_pointed_out_and_stay_apart(tmp_path):
    table = table_of(root=many(tmp_path, {"A": 2, "a": 2, "b": 2}), split=ALL_TRAIN)
    assert table.classes == ("A", "a", "b")
    (finding,) = table.findings
    assert finding.kind == "labels_by_case"
    assert "'A', 'a'" in finding.text


def test_other_splits_take_the_spelling_of_train(tmp_path):
    put(tmp_path, "train/Cat/1", "train/D\u00e9/2", "val/cat/3", "val/de\u0301 /4")
    table = table_of(root=tmp_path)
    assert table.classes == ("Cat", "D\u00e9")
    assert [row.label for row in table.rows if row.split == "validation"] == ["Cat", "D\u00e9"]
    assert "2 in all" in next(f.text for f in table.findings if "another case" in f.text)


def test_labels_of_a_manifest_and_its_splits(tmp_path):
    put(tmp_path, "1", "2", "3", "4")
    lines = "1,Cat,train\n2,dog,train\n3, cat,val\n4,DOG,val\n"
    table = table_of(manifest=manifest(tmp_path, "path,label,split\n" + lines))
    assert table.classes == ("Cat", "dog")
    assert kinds(table) == ["similar_labels"]


def test_several_names_in_a_label_are_pointed_out(tmp_path):
    put(tmp_path, *"123456")
    lines = '1,red\n2,blue\n3,red|dark\n4,"red, old"\n5,"Paris, Texas"\n6,blue;red\n'
    table = table_of(manifest=manifest(tmp_path, "path,label\n" + lines), split=ALL_TRAIN)
    (finding,) = table.findings
    assert finding.kind == "joined_labels"
    assert "3 in all" in finding.text
    assert "'red|dark'" in finding.text
    assert "Paris" not in finding.text
