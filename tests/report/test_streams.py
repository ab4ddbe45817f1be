"""What reaches a terminal: no control characters, no lines of libtiff; any encoding, full or closed."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_photos, run_cli
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from featcache.model import Prediction
from featcache.report.console import SafeConsole
from featcache.report.progress import TerminalReporter
from featcache.report.streams import printable, write_csv, write_json

ESCAPE = "\x1b]0;title\x07"
COMMAND = [sys.executable, "-m", "featcache"]


def shown(*parts, **options):
    out = io.StringIO()
    console = SafeConsole(out, width=200, **options)
    for part in parts:
        console.print(part)
    return out.getvalue()


@given(st.text())
def test_printable_text_has_no_control_character_and_loses_no_letter(text):
    safe = printable(text)
    assert not any((ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 for c in safe)
    safe.encode("utf-8")
    assert printable(safe) == safe


def test_escapes_are_visible():
    assert printable(ESCAPE) == "\\x1b]0;title\\x07"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("Katze 猫 ✓") == "Katze 猫 ✓"


def test_names_in_texts_and_tables_are_escaped_and_are_no_markup():
    table = Table(title=ESCAPE, min_width=60)
    table.add_column(ESCAPE)
    table.add_row(ESCAPE)
    table.add_row(Text(ESCAPE, style="red"))
    text = shown(ESCAPE, table, "[bold]x[/bold] :cat:", force_terminal=False)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("\\x1b]0;title") == 5
    assert "[bold]x[/bold] :cat:" in text


def test_notes_are_escaped():
    err = io.StringIO()
    with TerminalReporter(err) as reporter:
        reporter.note(f"photo {ESCAPE}")
    assert err.getvalue() == "photo \\x1b]0;title\\x07\n"


def test_json_and_csv_take_names_that_are_not_utf8():
    name = os.fsdecode(b"caf\xe9.png")
    out = io.StringIO()
    out.close = lambda: None
    write_json({"path": name, "label": "猫"}, out)
    assert json.loads(out.getvalue()) == {"path": name, "label": "猫"}
    out.getvalue().encode("utf-8")
    table = io.StringIO()
    table.close = lambda: None
    write_csv([Prediction(name, "a", 0.5, {"a": 0.5})], ["a"], table)
    assert os.fsencode(table.getvalue()) == b"path,label,probability,a\r\ncaf\xe9.png,a,0.5,0.5\r\n"


# ---- real processes --------------------------------------------------------------------------------------


def one_line(text):
    lines = [line for line in text.splitlines() if line.startswith("featcache: ")]
    assert "Traceback" not in text
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
def test_a_full_output_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "standard output: " in one_line(done.stderr)


def test_a_closed_output_is_one_line():
    command = f"{sys.executable} -m featcache --help >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "standard output is closed" in one_line(done.stderr)


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path):
    photos = make_photos(tmp_path / "photos")
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, "info", str(photos), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_any_encoding_of_the_output(tmp_path, encoding):
    photos = make_photos(tmp_path / "photos", classes=("猫", "dog"))
    done = run_cli("info", photos, "--cache", tmp_path / "cache", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "\\u732b" in done.stdout


@pytest.mark.parametrize(
    "argument", ["x" * 5000, os.fsdecode(b"caf\xe9"), ESCAPE, "a\nb"], ids=["long", "bytes", "escape", "line"]
)
@pytest.mark.parametrize("words", [["info"], ["heads"], ["predict", "no-model"]], ids=" ".join)
def test_impossible_names_are_one_line(words, argument):
    done = subprocess.run([*COMMAND, *words, argument], capture_output=True, check=False)
    text = done.stderr.decode()
    assert done.returncode == 1
    assert "\x1b" not in one_line(text)
    assert len(text) < 6000


@pytest.mark.parametrize("words", [["info"], ["features"]], ids=" ".join)
def test_a_recipe_that_is_a_pipe_or_has_no_end_is_refused_at_once(tmp_path, words):
    pipe = tmp_path / "recipe.toml"
    os.mkfifo(pipe)
    for name in (pipe, "/dev/zero"):
        done = run_cli(*words, name, timeout=60)
        assert done.returncode == 1
        assert "not a regular file" in one_line(done.stderr)


def test_lines_of_libtiff_are_dropped_and_others_pass():
    program = """
import os, sys
from featcache.report.streams import without_messages_of_libtiff
with without_messages_of_libtiff():
    os.write(2, b"TIFFReadDirectory: Warning, Unknown field with tag 42 encountered.\\n")
    os.write(2, b"tempfile.tif: cannot handle zero strip size.\\n")
    os.write(2, b"another library \\x1b[31m speaks\\n")
    print("Python speaks", file=sys.stderr)
os.write(2, b"after\\n")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert sorted(done.stderr.splitlines()) == ["Python speaks", "after", "another library \\x1b[31m speaks"]


@pytest.mark.parametrize("delay", [0.05, 0.4, 0.8, 1.5, 2.5])
def test_ctrl_c_at_any_moment_is_one_line(tmp_path, delay):
    photos = make_photos(tmp_path / "photos")
    # the start of Python itself cannot be caught: the first word says that it is over
    # where the tests themselves run in the background, the shell lets their processes ignore Ctrl-C
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from featcache.__main__ import main; print('ready', flush=True); sys.exit(main())"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "heads",
        str(photos),
        "--weights",
        "random",
        "--image-size",
        "32",
    ]
    command += ["--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert one_line(err) == "featcache: stopped; what was computed is kept"
