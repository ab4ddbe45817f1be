"""Imports point downward: the layout in docs/architecture.md, proved."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import featcache

ROOT = Path(featcache.__file__).parent

LEVELS = {
    "__main__": 6,
    "cli": 5,
    "cli_cache": 5,
    "cli_evaluate": 5,
    "cli_options": 5,
    "cli_output": 5,
    "cli_predict": 5,
    "cli_recipe": 5,
    "report": 4,
    "exporting": 4,
    "evaluating": 3,
    "extraction": 3,
    "train": 3,
    "training": 3,
    "search": 3,
    "sorting": 3,
    "finetuning": 3,
    "transformer": 3,
    "run": 2,
    "model": 2,
    "model_files": 2,
    "model_photos": 1,
    "novelty_file": 2,
    "prediction": 2,
    "inputs": 2,
    "heads": 2,
    "featurize": 2,
    "images": 1,
    "bases": 1,
    "store": 1,
    "evaluation": 1,
    "recipe": 0,
    "errors": 0,
    "archives": 0,
    "files": 0,
    "processor": 0,
    "reporter": 0,
    "runtime": 0,
    "versions": 0,
}

# Within a level a room may use these neighbours, and no others.
NEIGHBOURS = {
    ("cli", "cli_cache"),
    ("cli", "cli_evaluate"),
    ("cli_evaluate", "cli_output"),
    ("cli", "cli_options"),
    ("cli_cache", "cli_options"),
    ("cli_evaluate", "cli_options"),
    ("cli_predict", "cli_options"),
    ("cli", "cli_output"),
    ("cli", "cli_predict"),
    ("cli_predict", "cli_output"),
    ("cli", "cli_recipe"),
    ("report", "exporting"),
    ("evaluating", "extraction"),
    ("evaluating", "training"),
    ("finetuning", "extraction"),
    ("finetuning", "training"),
    ("search", "extraction"),
    ("search", "training"),
    ("train", "training"),
    ("training", "extraction"),
    ("transformer", "extraction"),
    ("model", "heads"),
    ("model", "run"),
    ("model", "model_files"),
    ("model_files", "run"),
    ("model", "featurize"),
    ("model", "inputs"),
    ("model", "novelty_file"),
    ("model", "prediction"),
    ("model_files", "novelty_file"),
    ("model_files", "heads"),
    ("inputs", "featurize"),
    ("recipe", "errors"),
    ("recipe", "files"),
    ("files", "errors"),
    ("runtime", "errors"),
}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found


def modules_imported_by(path: Path) -> set[str]:
    """Return modules, with those that are imported as names of their package."""
    froms = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return imports_of(path) | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def modules():
    return [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def test_every_room_has_a_level():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in modules()} == set(LEVELS)


def test_imports_point_downward():
    for path in modules():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for module in imports_of(path):
            if module.startswith("featcache."):
                other = room_of(module)
                downward = LEVELS[other] < LEVELS[own] or other == own or (own, other) in NEIGHBOURS
                assert downward, f"{path.name} imports {module}"


def test_only_networks_rooms_use_tensorflow():
    # exporting writes and runs the frameworks' own formats: that is all it is for
    allowed = {"bases", "heads", "finetuning", "exporting", "runtime", "processor"}
    for path in modules():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        names = {module.split(".")[0] for module in imports_of(path)}
        uses = {"tensorflow", "keras", "keras_hub", "openvino"} & names
        uses |= {m for m in imports_of(path) if m == "featcache.runtime"}
        assert not uses or own in allowed, f"{path.name} imports {uses}"


def test_the_store_knows_no_network_and_heads_no_hdf5_store():
    for path in modules():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        others = {room_of(module) for module in imports_of(path) if module.startswith("featcache.")}
        if own == "store":
            assert not others & {"bases", "images", "heads"}
        if own == "heads":
            assert "store" not in others


def test_no_module_imports_itself_through_others():
    names = {
        ".".join(("featcache", *path.relative_to(ROOT).with_suffix("").parts)): path for path in modules()
    }
    graph = {name: modules_imported_by(path) & names.keys() for name, path in names.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
