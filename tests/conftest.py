"""What all tests share: small photos, a tiny base, the real photos where they are there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache import processor
from featcache.bases.base import Base
from featcache.recipe import BaseSettings, Recipe
from featcache.store.base_store import Store

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    return Path(os.environ.get("FEATCACHE_SHARED") or ROOT.parent / "shared")


def pytest_collection_modifyitems(config, items):
    if not processor.has_bf16():
        without = pytest.mark.skip(reason="this processor has no bf16")
        for item in items:
            if "bf16" in item.keywords:
                item.add_marker(without)
    if (shared_folder() / "data").is_dir():
        return
    if os.environ.get("CI") == "true" and any("real" in item.keywords for item in items):
        raise pytest.UsageError(f"CI=true, but the photos of {shared_folder()} are not there")
    skip = pytest.mark.skip(reason=f"the photos of {shared_folder()} are not there")
    for item in items:
        if "real" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    return shared_folder()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Keep every test away from the user's own store."""
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "default-cache"))


def make_photo(path: Path, seed: int, size: tuple[int, int] = (40, 32)) -> None:
    """Write a photo with smooth random content, so that any two seeds differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR).save(path)


def make_photos(folder: Path, per_class: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write class folders of different photos and return `folder`."""
    for index, name in enumerate(classes):
        for number in range(per_class):
            make_photo(folder / name / f"{number:03}.png", 1000 * index + number)
    return folder


# A real network, small enough for two slow cores; in f32, so that its numbers are the same everywhere.
TINY_BASE = {
    "name": "MobileNetV2",
    "arguments": {"alpha": 0.35},
    "weights": "random",
    "image_size": 32,
    "batch_size": 8,
    "precision": "f32",
}


@pytest.fixture
def bf16_error(monkeypatch):
    """Return a function that fakes a processor with bf16 whose features differ from f32 by a given share."""
    from featcache.bases.openvino import OpenVINOEngine

    real = OpenVINOEngine.__call__

    def fake(share: float) -> None:
        def call(engine, pixels):
            features = real(engine, pixels)
            signs = np.where(np.arange(features.size) % 2, 1, -1).reshape(features.shape)
            return (
                features
                if engine.precision == "f32"
                else features * (1 + np.float32(share) * signs).astype(np.float32)
            )

        monkeypatch.setattr(processor, "has_bf16", lambda: True)
        monkeypatch.setattr(OpenVINOEngine, "__call__", call)

    return fake


@pytest.fixture
def photos(tmp_path) -> Path:
    return make_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory) -> Path:
    """A store that knows the tiny base and has no features: to be copied, building it takes seconds."""
    folder = tmp_path_factory.mktemp("tiny") / "cache"
    Base(BaseSettings(**TINY_BASE), Store(folder)).prepare()
    return folder


@pytest.fixture
def recipe(tmp_path, photos, tiny_store) -> Recipe:
    shutil.copytree(tiny_store, tmp_path / "cache")
    return tiny_recipe(tmp_path, photos)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_store) -> Path:
    """A folder with photos, cache and run: heads of three kinds on the tiny base. It is not to be changed."""
    from featcache.training import train_heads

    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_store, folder / "cache")
    recipe = tiny_recipe(folder, make_photos(folder / "photos")).model_dump(mode="json")
    recipe["heads"] = [{"type": "LogisticRegression"}, {"type": "GaussianNB"}, {"type": "dense", "epochs": 2}]
    recipe["selection"] = {"method": "validation"}  # so that validation photos are not trained on
    train_heads(Recipe.parse(recipe))
    return folder


def tiny_recipe(folder: Path, photos: Path, **base) -> Recipe:
    return Recipe.parse(
        {
            "data": {"root": str(photos)},
            "base": TINY_BASE | base,
            "heads": [{"type": "LogisticRegression"}],
            "cache": str(folder / "cache"),
            "run": str(folder / "run"),
        }
    )


def run_cli(*arguments: object, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as its users do, in a process of its own."""
    command = [sys.executable, "-m", "featcache.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment, check=False
    )
