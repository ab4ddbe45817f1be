"""What the README shows is so: its recipes are recipes, its commands and programs run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from typer.main import get_command

from featcache.cli import app
from featcache.recipe import Recipe

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def shown_commands():
    """Every command of featcache's in code, as words; what stands for a user's own value stays as it is."""
    code = "\n".join(
        [*blocks("bash"), *blocks("text"), *re.findall(r"^    (featcache .*)$", README, flags=re.M)]
    )
    return [shlex.split(line) for line in code.splitlines() if line.startswith("featcache ")]


def test_the_readme_shows_commands():
    assert len(shown_commands()) > 10


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_a_shown_command_has_these_options(words):
    command = get_command(app).commands[words[1]]
    command = getattr(command, "commands", {}).get(words[2], command) if len(words) > 2 else command
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("-")} <= known


def test_the_command_table_lists_all_commands():
    listed = set(re.findall(r"^\| `featcache (\w+)", README, flags=re.M))
    assert listed == set(get_command(app).commands)


@pytest.mark.parametrize("text", blocks("toml"), ids=lambda text: text.splitlines()[0])
def test_a_shown_recipe_is_one(text):
    raw = tomllib.loads(text)
    Recipe.parse({"data": {"root": "photos"}, **raw})


@pytest.mark.slow
def test_commands_and_programs_run_as_they_stand_there(tmp_path):
    """In a folder that has what `make heads` leaves behind."""
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    shell = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FEATCACHE_CACHE": str(tmp_path / "cache"),
    }

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    run("featcache", "sample", "digits", "data/digits")
    run("featcache", "heads", "pipelines/quickstart.toml")
    for block in blocks("bash"):
        for line in block.splitlines():
            if line.startswith("featcache "):
                run(*shlex.split(line))
    # the second program goes on from the first
    first, second, third = blocks("python")
    for program in (first + second, third):
        run(sys.executable, "-c", program)
