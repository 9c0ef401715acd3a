"""How scripts write: to consoles of any encoding, and to output that nobody reads or that is full or closed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from conftest import PYTHON, ROOT
from hypothesis import given
from hypothesis import strategies as st

from glinerko.common import ESCAPE

ENCODINGS = ["ascii", "cp949", "euc_kr", "iso2022_kr", "latin-1", "cp437", "cp1252", "big5", "utf-8", "utf-16"]
PRINT = "from glinerko.cli import make_console, run; run(lambda: {})"
TEXT = "당뇨병 😀 똠방각하 é"


# Python's euc_kr does not give back the Hangul filler, nor shift_jis the yen sign, which it writes as a backslash.
@given(st.text(st.characters(exclude_categories=(), exclude_characters="\u3164")), st.sampled_from(ENCODINGS))
def test_json_is_still_json_where_the_console_lacks_a_character(text, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=ESCAPE, newline="\n")
    print(json.dumps({"text": text}, ensure_ascii=False), file=stream, flush=True)
    (line,) = stream.buffer.getvalue().decode(encoding).removesuffix("\n").split("\n")
    # A character of two halves is one character again.
    assert json.loads(line)["text"] == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def start(code: str, **options) -> subprocess.Popen:
    environment = {**os.environ, **options.pop("environment", {})}
    python = options.pop("python", PYTHON)
    return subprocess.Popen([python, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.PIPE, **options)


@pytest.mark.slow(8)
@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
def test_a_console_of_any_encoding_shows_what_it_can(encoding):
    code, environment = (
        PRINT.format(f"[write({TEXT!r}) for write in (print, make_console().print)]"),
        {"PYTHONIOENCODING": encoding},
    )
    process = start(code, environment=environment, stdout=subprocess.PIPE, python=sys.executable)
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    assert [json.loads(f'"{line}"') for line in shown.decode(encoding).splitlines()] == [TEXT, TEXT]


@pytest.mark.parametrize("writer", ["print", "make_console().print"])
def test_output_that_nobody_reads_any_more_ends_the_script_quietly(writer):
    process = start(PRINT.format(f"[{writer}('x' * 100) for _ in range(10000)]"), stdout=subprocess.PIPE)
    assert process.stdout.readline().strip()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_messages_that_nobody_reads_any_more_end_the_script_quietly():
    process = start(f"import sys; {PRINT.format('[print(9, file=sys.stderr) for _ in range(10000)]')}")
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("BrokenPipeError(32, 'Broken pipe')", "Broken pipe"),  # another one than standard output
        ("PermissionError(13, 'Permission denied', '/a/b')", "/a/b: Permission denied"),
        ("DataError('caf\\udce9.jsonl: no such file')", r"caf\udce9.jsonl: no such file"),
    ],
)
def test_an_error_of_the_system_is_one_line(error, message):
    process = start(f"from glinerko.common import DataError; {PRINT.format(f'(_ for _ in ()).throw({error})')}")
    assert process.stderr.read().decode() == f"error: {message}\n"
    assert process.wait() == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_output_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        process = start(PRINT.format("print(1)"), stdout=full)
    assert process.stderr.read().decode().splitlines() == ["error: No space left on device"]
    assert process.wait() == 2


@pytest.mark.slow(8)
def test_a_closed_output_is_no_error():
    command = [sys.executable, "-c", PRINT.format("print(make_console().print(1))")]
    closed = ["sh", "-c", '"$@" >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, cwd=ROOT).returncode == 0
