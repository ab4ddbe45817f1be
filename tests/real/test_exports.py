"""Exports of heads on a real network answer like the model on real photos."""

import pytest

import featcache as fc
from featcache.exporting.runtimes import RUNTIMES

pytestmark = [pytest.mark.real, pytest.mark.slow]

HEADS = ("linear", "dense-128", "LogisticRegression")


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """Heads on MobileNetV2 and the 483 photos of catanddog, and a model whose upper blocks were trained."""
    folder = tmp_path_factory.mktemp("exports")
    recipe = fc.Recipe.parse(
        {
            "data": {"root": str(shared / "data" / "catanddog")},
            "base": {
                "name": "MobileNetV2",
                "weights": str(shared / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5"),
                "image_size": 96,
            },
            "heads": [
                {"type": "dense", "epochs": 10},
                {"type": "dense", "units": [128], "epochs": 5},
                {"type": "LogisticRegression", "C": 0.1, "max_iter": 1000},
            ],
            "finetune": {"unfreeze_from": 130, "epochs": 1},
            "cache": str(folder / "cache"),
            "run": str(folder / "run"),
        }
    )
    fc.train_heads(recipe)
    fc.finetune(recipe)
    return folder / "run" / "models"


@pytest.mark.parametrize("to", RUNTIMES)
@pytest.mark.parametrize("head", [*HEADS, "finetuned"])
def test_all_formats_of_all_heads(run, head, to):
    found = fc.export(run / head, to).comparison
    assert found.photos >= 100
    assert found.equal_labels == 1
    assert found.largest_difference < 1e-3
    assert found.exported_accuracy == found.accuracy > 0.85


@pytest.mark.parametrize("head", [*HEADS, "finetuned"])
@pytest.mark.parametrize(("quantize", "part"), [("float16", 0.55), ("int8", 0.35)])
def test_tflite_with_fewer_bits(run, head, quantize, part):
    whole = fc.export(run / head, "tflite")
    small = fc.export(run / head, "tflite", quantize=quantize)
    assert small.bytes < part * whole.bytes
    assert small.comparison.equal_labels >= (0.95 if quantize == "int8" else 0.99)
