"""Texts in, entities out: what ``scripts/predict.py`` reads and writes, and what it never destroys."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from backports import zstd
from conftest import PYTHON, ROOT, SAMPLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_scripts import one_line_error, run

from glinerko.common import DataError, check_output, check_writable, replace_file, write_json, write_json_lines
from glinerko.corpus.reading import load_rows, read_texts

TEXT = "당뇨병 😀 환자에게 인슐린을 투여함"
ROW = json.dumps({"id": "a", "text": TEXT}, ensure_ascii=False)
BOM = "\ufeff"


@pytest.fixture
def standard_input(tmp_path):
    """Make bytes the standard input of this process."""
    kept = os.dup(0)

    def give(content: bytes) -> None:
        (tmp_path / "standard_input").write_bytes(content)
        with open(tmp_path / "standard_input", "rb") as file:
            os.dup2(file.fileno(), 0)

    yield give
    os.dup2(kept, 0)


@pytest.mark.parametrize(
    "name", ["notes.jsonl", "notes.JSONL", "notes.ndjson", "notes.Json", "notes.txt", "notes", None]
)
def test_json_lines_are_recognised_whatever_the_file_is_called(tmp_path, standard_input, name):
    content = f'{BOM}\n{ROW}\n\n{{"text": "고혈압", "id": null}}\r\n'.encode()
    if name is None:
        standard_input(content)
    else:
        (tmp_path / name).write_bytes(content)
    assert list(read_texts(name and str(tmp_path / name))) == [("a", TEXT), ("4", "고혈압")]


@pytest.mark.parametrize("name", ["notes.txt", None])
def test_plain_text_is_one_document_a_line(tmp_path, standard_input, name):
    content = f"{BOM}{TEXT}\r\n \n[1] 참고: {{약}}\n".encode()
    if name is None:
        standard_input(content)
    else:
        (tmp_path / name).write_bytes(content)
    assert list(read_texts(name and str(tmp_path / name))) == [("1", TEXT), ("3", "[1] 참고: {약}")]


COMPRESSIONS = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstd.compress}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressed_files_are_read_and_damaged_ones_named(tmp_path, kind):
    whole = COMPRESSIONS[kind](f"{BOM}{ROW}\n".encode())
    for name in (f"notes.jsonl.{kind}", f"notes.{kind.upper()}"):
        (tmp_path / name).write_bytes(whole)
        assert list(read_texts(str(tmp_path / name))) == [("a", TEXT)]
    damaged = tmp_path / f"damaged.{kind}"
    damaged.write_bytes(b"*" + whole[1:])
    with pytest.raises(DataError, match=rf"damaged.{kind}: cannot be read \("):
        list(read_texts(str(damaged)))
    damaged.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=rf"damaged.{kind}: cannot be read \("):
        list(read_texts(str(damaged)))
    rows = tmp_path / f"rows.jsonl.{kind}"
    rows.write_bytes(COMPRESSIONS[kind](json.dumps({"text": TEXT, "entities": {"병": ["당뇨병"]}}).encode()))
    assert load_rows(str(rows))[0]["text"][:] == [TEXT]
    rows.write_bytes(rows.read_bytes()[:-3])
    with pytest.raises(DataError, match=rf"rows.jsonl.{kind}: cannot be read \("):
        load_rows(str(rows))


def test_a_packed_file_is_refused_and_json_lines_are_known_by_their_name(tmp_path):
    (tmp_path / "notes.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"notes.zip: unpack it first"):
        list(read_texts(str(tmp_path / "notes.zip")))
    (tmp_path / "notes.jsonl.gz").write_bytes(gzip.compress(b"plain"))
    with pytest.raises(DataError, match="line 1: malformed JSON"):
        list(read_texts(str(tmp_path / "notes.jsonl.gz")))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "\\ud800 당뇨병"}', "'text' holds half of a surrogate pair"),
        ('{"text": "당뇨병", "id": "\\udfff"}', "'id' holds half of a surrogate pair"),
        ('{"text": null}', 'expected an object with a "text"'),
        ('["당뇨병"]', 'expected an object with a "text"'),
        ('{"text": "당뇨병"', "malformed JSON"),
        ('{"text": "a", "text": "b"}', "the key 'text' is given twice"),
        ("[" * 100_000, "malformed JSON: nested too deeply"),
    ],
)
@pytest.mark.parametrize("name", ["notes.jsonl", None])
def test_a_bad_row_is_named_with_file_and_line(tmp_path, standard_input, name, line, reason):
    content = f"{ROW}\n\n{line}\n".encode()
    if name is None:
        standard_input(content)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_texts(name and str(tmp_path / name)))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name if name else 'standard input'}, line 3: {reason}")
    assert "\n" not in message


@pytest.mark.parametrize("first", ["{", "[", '[{"text": "당뇨병"}]', '{"text'])
def test_other_json_is_refused_rather_than_read_as_text(standard_input, first):
    standard_input(f"\n{first}\n".encode())
    with pytest.raises(DataError, match=r"standard input, line 2: (malformed JSON|expected an object)"):
        list(read_texts(None))


def test_standard_input_of_another_encoding_is_named(standard_input):
    standard_input(TEXT.replace("😀", "").encode("cp949"))
    with pytest.raises(DataError, match="standard input: not UTF-8"):
        list(read_texts(None))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), min_size=1))
def test_any_text_is_read_as_it_was_written(tmp_path, texts):
    write_json_lines(tmp_path / "texts", ({"text": text} for text in texts))
    assert [text for _, text in read_texts(str(tmp_path / "texts"))] == texts


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path, link = tmp_path / "new" / "result.jsonl", tmp_path / "link"
    with replace_file(path) as file:
        file.write("first")
        assert not path.exists()
    link.symlink_to(path)
    path.chmod(0o640)
    with pytest.raises(TypeError), replace_file(link) as file:
        file.writelines(["second", 2])
    assert path.read_text() == "first"
    with replace_file(link) as file:
        file.write("third")
    assert link.is_symlink()
    assert path.read_text() == "third"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["result.jsonl"]


def test_json_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    write_json(tmp_path / "report.json", {"f1": 0.5, "file": "caf\udce9"})
    assert json.loads((tmp_path / "report.json").read_text()) == {"f1": 0.5, "file": "caf\udce9"}
    with pytest.raises(TypeError):
        write_json_lines(tmp_path / "report.json", [{"f1": 0.6}, {"f1": object()}])
    assert "0.5" in (tmp_path / "report.json").read_text()


def test_a_pipe_is_written_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        with replace_file(tmp_path / "pipe") as file:
            file.write("a")
        assert reader.stdout.read() == b"a"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_never_written_over(tmp_path, link):
    (tmp_path / "notes.jsonl").write_text(ROW)
    link(tmp_path / "notes.jsonl", tmp_path / "other")
    with (tmp_path / "notes.jsonl").open() as opened:
        for source in (str(tmp_path / "notes.jsonl"), opened.fileno()):
            with pytest.raises(DataError, match=r"other: would be written over, but is also an input"):
                check_output(tmp_path / "other", None, source)
    check_output(tmp_path / "other", None, str(tmp_path / "missing"))
    check_output(tmp_path / "missing", str(tmp_path / "other"))


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nope")):
        with pytest.raises(DataError, match=f"{directory}: cannot be written"):
            check_writable(directory)
    assert os.listdir(check_writable(tmp_path / "new" / "directory")) == []


def test_rows_are_read_without_a_cache_that_can_be_written(tmp_path, monkeypatch, caplog, write_rows):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        rows, _ = load_rows(write_rows({"text": TEXT, "entities": {"Drug": ["인슐린"]}}))
    assert rows["text"][:] == [TEXT]
    (said,) = (record.getMessage() for record in caplog.records if "HF_DATASETS_CACHE" in record.getMessage())
    assert f"{tmp_path / 'file'}: cannot be written" in said


@pytest.fixture(scope="session")
def saved(pair, schema, tmp_path_factory):
    """A tiny model that finds everything."""
    from glinerko.model.swap import swap_encoder

    directory = tmp_path_factory.mktemp("saved")
    model, _ = swap_encoder(*pair, schema=schema)
    model.configure(threshold=0.0)
    model.save_pretrained(directory)
    return directory


def predict(saved, *flags, content: bytes = b"", python=PYTHON, **environment) -> subprocess.CompletedProcess:
    command = [python, "scripts/predict.py", "--model", saved, *flags]
    environment = {**os.environ, **environment}
    return subprocess.run([*map(str, command)], cwd=ROOT, env=environment, input=content, capture_output=True)


@pytest.mark.slow(10)
@pytest.mark.parametrize("encoding", ["cp949", "ascii"])
def test_documents_are_read_and_written_in_utf_8_whatever_the_console_says(saved, encoding):
    """Standard input begins with a byte order mark; offsets do not count it."""
    result = predict(saved, content=f"{BOM}{TEXT}".encode(), python=sys.executable, PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout.decode("utf-8"))
    assert document["text"] == TEXT
    assert document["entities"]
    assert all(TEXT[entity["start"] : entity["end"]] == entity["text"] for entity in document["entities"])


@pytest.mark.slow(8)
def test_a_terminal_is_shown_json(saved):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONIOENCODING": "cp949"}
    command = [sys.executable, "scripts/predict.py", "--model", str(saved), "--text", TEXT, "--threshold", "1"]
    assert subprocess.run(command, cwd=ROOT, env=environment, stdout=theirs).returncode == 0
    assert json.loads(os.read(ours, 1 << 16).decode("cp949"))["text"] == TEXT


@pytest.mark.slow(10)
def test_an_earlier_result_outlives_a_run_that_fails(saved, tmp_path):
    notes, result = tmp_path / "notes.jsonl", tmp_path / "result.jsonl"
    notes.write_text(ROW)
    result.write_text("earlier")
    files = ["--input_file", notes, "--output_file"]
    one_line_error(run(PYTHON, "scripts/predict.py", "--model", tmp_path, *files, result), "no config.json")
    one_line_error(run(PYTHON, "scripts/predict.py", "--model", saved, *files, notes), "is also an input")
    one_line_error(run(PYTHON, "scripts/predict.py", "--model", saved, *files, result / "below"), "cannot be written")
    one_line_error(run(PYTHON, "scripts/predict.py", "--model", saved, *files, tmp_path), "cannot be written")
    assert (notes.read_text(), result.read_text()) == (ROW, "earlier")
    assert predict(saved, *files, result).returncode == 0
    assert json.loads(result.read_text())["text"] == TEXT
    assert sorted(os.listdir(tmp_path)) == ["notes.jsonl", "result.jsonl"]


def test_a_document_without_text_has_no_entities_and_is_counted(saved):
    result = predict(saved, content=f'{{"text": " "}}\n{ROW}\n{{"text": ""}}'.encode())
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["id"], bool(each["entities"])) for each in documents] == [("1", False), ("a", True), ("3", False)]
    assert "2 documents are empty (the first is 1)" in result.stderr.decode()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_line(saved):
    for device in ("cuda", "cuda:1", "meta", "none"):
        one_line_error(run(PYTHON, "scripts/predict.py", "--model", saved, "--text", TEXT, "--device", device), device)


def test_a_text_and_a_file_are_not_both_read(saved):
    flags = ["--text", TEXT, "--input_file", SAMPLE / "test.jsonl"]
    one_line_error(run(PYTHON, "scripts/predict.py", "--model", saved, *flags), "--text or --input_file, not both")


@pytest.mark.slow(25)
def test_a_model_is_scored_without_a_cache_that_can_be_written(saved, tmp_path):
    (tmp_path / "few.jsonl").write_text("".join((SAMPLE / "test.jsonl").open().readlines()[:8]))
    score = [
        "scripts/eval.py",
        "--model",
        saved,
        "--test_file",
        tmp_path / "few.jsonl",
        "--report_dir",
        tmp_path / "report",
    ]
    result = run(PYTHON, *score, HF_DATASETS_CACHE="/proc/nope")
    assert result.returncode == 0, result.stderr
    assert "/proc/nope: cannot be written" in result.stderr
    assert json.loads((tmp_path / "report" / "report.json").read_text())["documents"] == 8
    candidates = [json.loads(line) for line in (tmp_path / "report" / "candidates.jsonl").open()]
    rows, _ = load_rows(str(tmp_path / "few.jsonl"))
    assert [each["id"] for each in candidates] == rows["id"][:]
    assert all(0.05 <= score <= 1 for each in candidates for *_, score in each["spans"])
    assert sum(len(each["spans"]) for each in candidates) > 8
