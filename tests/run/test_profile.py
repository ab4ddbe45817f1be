"""The profile of the extraction that computed the features stays in the run."""

import json

from featcache.extraction.stage import extract


def test_the_profile_of_the_extraction_that_computed_is_kept(recipe):
    first = extract(recipe)
    kept = json.loads((recipe.run / "extraction.json").read_text())
    assert kept == first.to_json() | {"profile": first.profile.to_json()}
    assert kept["computed"] == 24
    assert kept["profile"]["workers"] >= 1
    assert extract(recipe).computed == 0
    assert json.loads((recipe.run / "extraction.json").read_text()) == kept
