"""Rows into a format and back are the same rows; what a format cannot hold is refused or listed, in one line."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest
from conftest import ROOT, SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glinerko.common import DataError
from glinerko.corpus.matching import strip, trim
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.words import load_word_splitter

_spec = importlib.util.spec_from_file_location("convert_script", ROOT / "scripts" / "convert.py")
SCRIPT = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(SCRIPT)

KOREAN = "당뇨병 환자에게 인슐린을 투여함. 가나다 ABC-1 5mg"
NFD = "당뇨병"
ODD = "😀👩‍⚕️é\u200b\u3000\xa0|\\<>&;\"'#"
LABELS = ("Disease", "약물", "Adverse Event")


def texts(extra: str = "\t\r\n"):
    """Texts of Korean words, with emoji, decomposed characters and odd white space between them."""
    parts = st.one_of(
        st.sampled_from(KOREAN.split()), st.just(NFD), st.sampled_from(ODD + extra), st.just(" "), st.just("  ")
    )
    return st.lists(parts, min_size=1, max_size=12).map("".join).filter(str.strip)


@st.composite
def rows(draw, extra: str = "\t\r\n", words=None, flat: bool = False):
    """Rows with mentions anywhere (but in white space), or only over whole words, or without overlap."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        text = draw(texts(extra))
        units = words(text) if words else [(at, at + 1) for at in range(len(text))]
        pairs = st.tuples(st.integers(0, len(units) - 1), st.integers(0, len(units) - 1)).map(sorted)
        taken, entities = set(), {label: [] for label in LABELS}
        for (first, last), label in draw(st.lists(st.tuples(pairs, st.sampled_from(LABELS)), max_size=4)):
            start, end = trim(text, units[first][0], units[last][1])
            if not strip(text[start:end]):
                continue
            mention = {"text": text[start:end], "start": start, "end": end}
            if mention in entities[label] or (flat and not taken.isdisjoint(range(start, end))):
                continue
            taken.update(range(start, end))
            entities[label].append(mention)
        identifier = draw(st.sampled_from(["a", "my notes:3", "tab\tor\nline", "나", "#|\\s"])) + str(number)
        found.append({"id": identifier, "text": text, "entities": entities})
    return found


def call(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, flags)])
    SCRIPT.main()


def there_and_back(monkeypatch, directory, content, name, *flags, suffix=".out", reading=()):
    """Rows in a format, and what is read from that file again without being told its format."""
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    call(monkeypatch, path, "--to", name, "--output_file", directory / f"there{suffix}", *flags)
    call(
        monkeypatch,
        directory / f"there{suffix}",
        "--output_file",
        directory / "back.jsonl",
        "--labels",
        *LABELS,
        *reading,
    )
    lines = (directory / "back.jsonl").read_text(encoding="utf-8").splitlines()
    rows, bad = load_rows(str(directory / "back.jsonl"))
    assert bad == 0
    assert len(rows) == len(content)
    gold = {(example.id, span) for example in map(Example.from_row, rows) for span in example.gold_spans}
    assert gold == {
        (row["id"], (m["start"], m["end"], label))
        for row in content
        for label, ms in row["entities"].items()
        for m in ms
    }
    return list(map(json.loads, lines))


def plain(content):
    """Rows that can be compared: the order of mentions does not matter."""
    return [
        {
            **row,
            "entities": {
                label: sorted(ms, key=lambda m: (m["start"], m["end"])) for label, ms in row["entities"].items()
            },
        }
        for row in content
    ]


MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(("name", "suffix"), [("gliner2", ".jsonl"), ("label_studio", ".json"), ("doccano", ".jsonl")])
def test_json_holds_any_text_and_any_mention(monkeypatch, tmp_path, name, suffix):
    @MANY
    @given(rows())
    def check(content):
        assert plain(there_and_back(monkeypatch, tmp_path, content, name, suffix=suffix)) == plain(content)

    check()


def test_klue_holds_any_characters_but_line_breaks_and_overlaps(monkeypatch, tmp_path):
    @MANY
    @given(rows(extra="\t\r", flat=True))
    def check(content):
        assert plain(there_and_back(monkeypatch, tmp_path, content, "klue", suffix=".tsv")) == plain(content)

    check()


@pytest.mark.parametrize("splitter", ["korean", "char"])
def test_conll_holds_any_white_space_and_mentions_of_whole_words(monkeypatch, tmp_path, splitter):
    words = load_word_splitter(splitter).split

    @MANY
    @given(rows(words=words, flat=True))
    def check(content):
        flags = "--word_splitter", splitter
        assert plain(there_and_back(monkeypatch, tmp_path, content, "conll", *flags)) == plain(content)

    check()


@pytest.mark.parametrize("key", [None, "sc"])
def test_spacy_holds_mentions_of_whole_words_and_overlaps_in_a_span_group(monkeypatch, tmp_path, key):
    pytest.importorskip("spacy", reason="spaCy is not installed")
    flags = ("--spans_key", key) if key else ()

    @MANY
    @given(rows(words=load_word_splitter("korean").split, flat=key is None))
    def check(content):
        there = there_and_back(monkeypatch, tmp_path, content, "spacy", *flags, suffix=".spacy", reading=flags)
        assert plain(there) == plain(content)

    check()


ROW = {"id": "a", "text": "당뇨병성\n신증", "entities": {"Disease": []}}


def written(monkeypatch, tmp_path, row, name, *flags):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    call(monkeypatch, tmp_path / "rows.jsonl", "--to", name, "--output_file", tmp_path / "out", *flags)
    return [json.loads(line) for line in (tmp_path / "out.report.jsonl").read_text().splitlines()]


def test_a_line_break_is_refused_by_klue(monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: KLUE's TSV .* cannot hold a line break.*--on_bad_row"):
        written(monkeypatch, tmp_path, ROW, "klue")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no document to write; the first record is skipped"):
        written(monkeypatch, tmp_path, ROW, "klue", "--on_bad_row", "skip")


@pytest.mark.parametrize("name", ["conll", "spacy"])
def test_a_mention_inside_a_word_is_listed_and_never_widened(monkeypatch, tmp_path, name):
    inside = {"text": "뇨", "start": 1, "end": 2}
    row = {"id": "a", "text": "당뇨병 환자", "entities": {"Disease": [inside]}}
    (entry,) = written(monkeypatch, tmp_path, row, name)
    assert entry["what"] == "not written"
    assert (entry["kind"], entry["record"], entry["mentions"]) == (
        "mention that does not begin and end where a word does",
        "a",
        1,
    )
    if name == "conll":
        assert "B-" not in (tmp_path / "out").read_text()


def test_of_mentions_that_overlap_the_longest_is_written_and_the_others_are_listed(monkeypatch, tmp_path):
    mentions = [{"text": "당뇨", "start": 0, "end": 2}, {"text": "당뇨병", "start": 0, "end": 3}]
    (entry,) = written(monkeypatch, tmp_path, {**ROW, "text": "당뇨병", "entities": {"Disease": mentions}}, "klue")
    assert (entry["kind"], entry["mentions"]) == ("mention that overlaps another one", 1)
    assert (tmp_path / "out").read_text() == "## a\t<당뇨병:Disease>\n당\tB-Disease\n뇨\tI-Disease\n병\tI-Disease\n\n"


def test_a_mention_that_is_not_in_its_text_is_listed(monkeypatch, tmp_path):
    entries = written(monkeypatch, tmp_path, {**ROW, "entities": {"Drug": ["인슐린"]}}, "doccano")
    assert [(e["what"], e["mentions"]) for e in entries] == [("noticed", 1), ("not written", 1)]


def test_predictions_become_predictions_with_scores(monkeypatch, tmp_path):
    entity = {"start": 0, "end": 3, "label": "Disease", "text": "당뇨병", "score": 0.9}
    rows = [{"id": "a", "text": "당뇨병 😀", "entities": [entity]}, {"id": "b", "text": "없음", "entities": []}]
    (tmp_path / "spans.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call(monkeypatch, tmp_path / "spans.jsonl", "--to", "label_studio", "--output_file", tmp_path / "tasks.json")
    first, second = json.loads((tmp_path / "tasks.json").read_text())
    (prediction,) = first["predictions"]
    (result,) = prediction["result"]
    assert (prediction["score"], result["score"], result["value"]["labels"]) == (0.9, 0.9, ["Disease"])
    assert result["value"] | {"labels": []} == {"start": 0, "end": 3, "text": "당뇨병", "labels": []}
    assert second["predictions"][0]["result"] == []
    assert "annotations" not in first
    assert '<Label value="Disease"/>' in (tmp_path / "tasks.json.config.xml").read_text()


@pytest.mark.slow(30)
def test_klue_ner_converts_completely_and_back(monkeypatch, tmp_path):
    path = SHARED / "klue_ner" / "klue-ner-v1.1_dev_first4000.tsv"
    if not path.is_file():
        pytest.skip(f"KLUE-NER is not at {path}")
    call(monkeypatch, path, "--output_file", tmp_path / "rows.jsonl")
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4000
    assert {len(row["entities"]) for row in rows} == {6}
    assert sum(len(ms) for row in rows for ms in row["entities"].values()) == sum("\tB-" in line for line in lines)
    call(monkeypatch, tmp_path / "rows.jsonl", "--to", "klue", "--output_file", tmp_path / "back.tsv")
    body = "\n".join(line for line in lines if not re.match("## (토큰|문장|주석|컬럼명)", line))
    back = (tmp_path / "back.tsv").read_text(encoding="utf-8")
    changed = [(a, b) for a, b in zip(body.split("\n\n"), back.split("\n\n"), strict=True) if a != b]
    assert len(changed) == 2
    # Two mentions of the corpus begin with a blank: it is cut.
    assert all(a.splitlines()[0].replace("< ", " <") == b.splitlines()[0] for a, b in changed)
