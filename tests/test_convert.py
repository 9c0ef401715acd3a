"""Exports of annotation tools into rows: their shapes, offsets that exports broke, encodings, and one line for bad input."""

from __future__ import annotations

import copy
import html
import io
import json
import sys
import unicodedata

import pytest
from conftest import PYTHON
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formats_round_trip import call
from test_scripts import one_line_error, run

from glinerko.common import DataError
from glinerko.corpus.formats import FORMATS
from glinerko.corpus.formats.conversion import Account, Reading
from glinerko.corpus.formats.documents import Annotation, FormatOptions
from glinerko.corpus.formats.repair import repair_offsets
from glinerko.corpus.formats.sources import Source
from glinerko.corpus.formats.tags import decode_tags, encode_tags
from glinerko.corpus.parsing import parse_row
from glinerko.corpus.reading import load_rows

TEXT = "당뇨병 환자에게 인슐린을 투여함"
OTHER = "혈당이 정상임"
SPANS = {"Disease": [(0, 3)], "Drug": [(9, 12)]}
RESULT = [
    {"type": "labels", "id": "x", "from_name": "label", "to_name": "text", "value": {"start": s, "end": e, "text": TEXT[s:e], "labels": [label]}}
    for label, ((s, e),) in SPANS.items()
]  # fmt: skip


def task(number, result, text=TEXT, **annotation):
    annotations = [{"id": 7, "result": result, "was_cancelled": False, "ground_truth": False, **annotation}]
    return {"id": number, "data": {"text": text}, "annotations": annotations, "predictions": []}


def lines(*rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


ABOUT = {"annotator": 1, "annotation_id": 3, "created_at": "2025", "updated_at": "2025", "lead_time": 1.5}
BLOCK = "당뇨병\tB-Disease\n환자에게\tO\n인슐린을\tB-Drug\n투여함\tO\n"
KLUE = "## 컬럼명 : CHAR\tNE_TAG\n## 1\t<당:Disease>뇨\n당\tB-Disease\n \tO\n뇨\tB-Drug\n\n## 2\t혈\n혈\tO\n\n"
# Name of the file, content, and how often each label must be found.
EXPORTS = {
    "label_studio": ("a.json", json.dumps([task(1, RESULT), task(2, [], OTHER)])),
    "label_studio min": (
        "a.json",
        json.dumps(
            [
                {"id": 1, "text": TEXT, "label": [r["value"] for r in RESULT], **ABOUT},
                {"id": 2, "text": OTHER, **ABOUT},
            ]
        ),
    ),
    "doccano": ("a.jsonl", lines({"id": 1, "text": TEXT, "label": [[0, 3, "Disease"], [9, 12, "Drug"]]}, {"id": 2, "text": OTHER, "label": []})),
    "doccano relations": (
        "a.jsonl",
        lines(
            {"id": 2, "text": OTHER, "entities": [], "relations": [], "Comments": []},
            {"id": 1, "text": TEXT, "relations": [], "entities": [
                {"id": 1, "label": "Disease", "start_offset": 0, "end_offset": 3},
                {"id": 2, "label": "Drug", "start_offset": 9, "end_offset": 12},
            ]},
        ),
    ),
    "prodigy": (
        "a.jsonl",
        lines(
            {"text": TEXT, "_input_hash": 1, "answer": "accept", "_view_id": "ner_manual", "tokens": [], "spans": [
                {"start": 0, "end": 3, "label": "Disease", "token_start": 0, "token_end": 0},
                {"start": 9, "end": 12, "label": "Drug"},
            ]},
            {"text": OTHER, "spans": [], "answer": "accept"},
            {"text": "거절", "spans": [], "answer": "reject"},
            {"text": "무시", "answer": "ignore"},
        ),
    ),
    "argilla": (
        "records.json",
        json.dumps(
            [
                {"id": "1", "fields": {"text": TEXT}, "metadata": {}, "vectors": {}, "_server_id": "s",
                 "suggestions": {"spans": {"value": [{"label": "Bad", "start": 0, "end": 1}], "score": None, "agent": "m"}},
                 "responses": {"spans": [{"value": [{"label": "Disease", "start": 0, "end": 3}, {"label": "Drug", "start": 9, "end": 12}], "user_id": "u"}],
                               "quality": [{"value": "good", "user_id": "u"}]}},
                {"id": "2", "fields": {"text": OTHER}, "suggestions": {}, "responses": {"spans": [{"value": [], "user_id": "u"}]}},
                {"id": "3", "fields": {"text": OTHER}, "suggestions": {}, "responses": {}},
            ]
        ),
    ),
    "argilla 1": (
        "a.jsonl",
        lines(
            {"id": "1", "text": TEXT, "tokens": TEXT.split(), "status": "Validated", "prediction": None,
             "annotation": [["Disease", 0, 3], {"label": "Drug", "start": 9, "end": 12, "score": 1.0}]},
            {"id": "2", "text": OTHER, "tokens": OTHER.split(), "status": "Validated", "annotation": []},
            {"id": "3", "text": OTHER, "tokens": OTHER.split(), "status": "Default", "annotation": None},
        ),
    ),
    "conll": ("a.conll", f"-DOCSTART- -X- O O\n\n# comment\n{BLOCK}\n혈당이\tO\n정상임\tO\n"),
    "conll spaces, BIOES": (
        "a.txt", "당뇨병 NN S-Disease\r\n환자에게 NN O\r\n인슐린을 NN B-Drug\r\n투여함 NN E-Drug\r\n\r\n혈당이 NN O\r\n정상임 NN O\r\n"
    ),
    "klue": ("a.tsv", KLUE),
    "kbmc": ("a.csv", f"Sentence,Tags\n{TEXT},Disease-B O Drug-B O\n{OTHER},O O\n"),
    "gliner": (
        "a.json",
        json.dumps([
            {"tokenized_text": TEXT.split(), "ner": [[0, 0, "Disease"], [2, 2, "Drug"]], "ner_negatives": ["Test"]},
            {"tokenized_text": OTHER.split(), "ner": []},
        ]),
    ),
    "gliner2": ("a.jsonl", lines(
        {"input": TEXT, "output": {"entities": {"Disease": ["당뇨병"], "Drug": ["인슐린"]}, "entity_descriptions": {"Drug": "약"}}},
        {"text": OTHER, "entities": {"Disease": [], "Drug": []}},
    )),
    "table": ("a.csv", f"id,text,Disease,Drug\n1,{TEXT},당뇨병; ,\"[\"\"인슐린\"\"]\"\n2,{OTHER},,\n"),
    "predictions": ("a.jsonl", lines({"id": "1", "text": TEXT, "entities": [
        {"start": 0, "end": 3, "label": "Disease", "text": "당뇨병", "score": 0.9}, {"start": 9, "end": 12, "label": "Drug", "text": "인슐린", "score": 0.8}
    ]}, {"id": "2", "text": OTHER, "entities": []})),
}  # fmt: skip


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Convert a file with this content; returns the rows and the report."""

    def convert(name, content, *flags, path=None):
        path = path or tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        call(monkeypatch, path, "--output_file", tmp_path / "rows.jsonl", *flags)
        return read(tmp_path / "rows.jsonl"), read(tmp_path / "rows.jsonl.report.jsonl")

    return convert


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def spans(row):
    return {label: [(m["start"], m["end"]) for m in ms] for label, ms in row["entities"].items()}


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_recognised_and_read(convert, tmp_path, export):
    rows, report = convert(*EXPORTS[export])
    assert load_rows(str(tmp_path / "rows.jsonl"))[1] == 0
    rows.sort(key=lambda row: len(row["text"]), reverse=True)
    first, second = rows
    expected = {"klue": {"Disease": [(0, 1)], "Drug": [(2, 3)]}}.get(export, SPANS)
    if "conll" in export:
        expected = {"Disease": [(0, 3)], "Drug": [(9, 17 if "BIOES" in export else 13)]}
    elif export == "kbmc":
        expected = {"Disease": [(0, 3)], "Drug": [(9, 13)]}
    elif export == "gliner":
        expected = {"Disease": [(0, 3)], "Drug": [(9, 13)], "Test": []}
    assert spans(first) == expected
    assert all(first["text"][m["start"] : m["end"]] == m["text"] for ms in first["entities"].values() for m in ms)
    # A document without a mention is a negative of all labels of its project; GLiNER v1 has no project.
    assert spans(second) == ({} if export == "gliner" else {"Disease": [], "Drug": []})
    left_out = {"prodigy": ["answer: reject", "answer: ignore"], "argilla": ["record without a submitted response to a span question"],
                "argilla 1": ["record that is discarded or not annotated"]}  # fmt: skip
    assert [entry["kind"] for entry in report if entry["what"] == "left out"] == left_out.get(export, [])


def test_brat_pairs_with_labels_of_the_project_and_all_that_is_no_mention(convert, tmp_path):
    folder = tmp_path / "brat"
    (folder / "sub").mkdir(parents=True)
    (folder / "annotation.conf").write_text("[entities]\nDisease\n\tDrug\nTest\n[relations]\nRel Arg1:Drug\n")
    (folder / "b.txt").write_bytes(f"{TEXT}\r\n{OTHER}".encode())
    (folder / "b.ann").write_text(
        "T1\tDisease 0 3\t당뇨병\nR1\tRel Arg1:T1 Arg2:T1\nT2\tDrug 9 12\t인슐린\n#1\tNote T1\tx\n"
    )
    (folder / "sub" / "a.txt").write_text(OTHER)
    (folder / "sub" / "a.ann").write_text("")
    (folder / "notes.md").write_text("x")
    rows, report = convert(None, None, path=folder)
    assert [(row["id"], spans(row)) for row in rows] == [
        ("b", SPANS | {"Test": []}),
        ("sub/a", {"Disease": [], "Drug": [], "Test": []}),
    ]
    assert rows[0]["text"] == f"{TEXT}\r\n{OTHER}"
    kinds = {entry["kind"]: entry["mentions"] for entry in report}
    assert kinds == {
        "line of brat that is no mention (relation, event, attribute, note)": 2,
        "file of another format": 0,
    }


@pytest.mark.parametrize("choice", ["raise", "join", "skip"])
def test_a_mention_of_several_parts_is_an_error_or_what_the_user_chose(convert, tmp_path, choice):
    (tmp_path / "a.txt").write_text("간 및 폐 전이")
    (tmp_path / "a.ann").write_text("T1\tDisease 0 1;6 8\t간 전이\nT2\tDisease 4 8\t폐 전이\n")
    if choice == "raise":
        with pytest.raises(DataError, match=r"a\.ann, the file: line 1: a mention of 'Disease' has 2 parts"):
            convert(None, None, path=tmp_path / "a.ann")
        return
    rows, report = convert(None, None, "--on_discontinuous", choice, path=tmp_path / "a.ann")
    assert spans(rows[0]) == {"Disease": [(0, 8), (4, 8)] if choice == "join" else [(4, 8)]}
    assert report[0]["kind"].startswith("mention of several parts")


def test_spacy_documents(convert, tmp_path):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    doc = spacy.tokens.Doc(spacy.vocab.Vocab(), words=TEXT.split(), ents=["B-Disease", "O", "B-Drug", "O"])
    doc.spans["sc"] = [doc.char_span(0, 8, label="Test"), doc.char_span(0, 3, label="Disease")]
    path = tmp_path / "a.spacy"
    spacy.tokens.DocBin(docs=[doc]).to_disk(path)
    assert spans(convert(None, None, path=path)[0][0]) == {"Disease": [(0, 3)], "Drug": [(9, 13)]}
    rows, _ = convert(None, None, "--spans_key", "sc", path=path)
    assert spans(rows[0]) == {"Disease": [(0, 3)], "Drug": [(9, 13)], "Test": [(0, 8)]}
    with pytest.raises(DataError, match="document 1: no spans 'other'; there are 'sc'"):
        convert(None, None, "--spans_key", "other", path=path)


@pytest.mark.parametrize("kind", ["parquet", "directory", "splits", "characters"])
def test_kbmc_as_parquet_and_as_a_saved_data_set(convert, tmp_path, kind):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

    data = Dataset.from_dict({"Sentence": [TEXT, OTHER], "Tags": ["Disease-B O Drug-B O", "O O"]})
    if kind == "characters":
        names = ["O", "B-Disease", "I-Disease"]
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
        data = Dataset.from_dict(
            {"tokens": [list("당뇨 병"), list("혈당")], "ner_tags": [[1, 2, 0, 0], [0, 0]]}, features
        )
    path = tmp_path / ("a.parquet" if kind in ("parquet", "characters") else "a")
    if path.suffix:
        data.to_parquet(path)
    else:
        (DatasetDict(train=data) if kind == "splits" else data).save_to_disk(path)
    rows, _ = convert(None, None, path=path)
    if kind == "characters":
        assert [(row["text"], spans(row)) for row in rows] == [
            ("당뇨 병", {"Disease": [(0, 2)]}),
            ("혈당", {"Disease": []}),
        ]
    else:
        assert [row["text"] for row in rows] == [TEXT, OTHER]
        assert spans(rows[0]) == {"Disease": [(0, 3)], "Drug": [(9, 13)]}


def test_white_space_around_a_mention_is_cut_and_counted(convert):
    rows, report = convert("a.jsonl", '{"text": "환자는 당뇨병 진단", "label": [[3, 8, "X"], [8, 10, "X"]]}')
    assert rows[0]["entities"] == {
        "X": [{"text": "당뇨병", "start": 4, "end": 7}, {"text": "진단", "start": 8, "end": 10}]
    }
    assert "mention with white space around it: cut to its text" in json.dumps(report, ensure_ascii=False)


def test_xlsx_with_a_column_for_each_label(convert, tmp_path):
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    import pandas

    with pandas.ExcelWriter(tmp_path / "a.xlsx") as book:
        table = {"문장": [TEXT, OTHER], "Disease": ["당뇨병", None], "Drug": ["인슐린\n당뇨", "NA"]}
        pandas.DataFrame(table).replace("NA", None).to_excel(book, sheet_name="1", index=False)
        pandas.DataFrame({"x": [1]}).to_excel(book, sheet_name="읽기", index=False)
    rows, report = convert(None, None, "--text_column", "문장", path=tmp_path / "a.xlsx")
    assert spans(rows[0]) == {"Disease": [(0, 3)], "Drug": [(9, 12), (0, 2)]}
    assert spans(rows[1]) == {"Disease": [], "Drug": []}
    assert [(entry["record"], entry["kind"]) for entry in report] == [("sheet 읽기", "sheet that is not the first")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949"])
@pytest.mark.parametrize("export", ["label_studio", "doccano", "conll", "klue", "kbmc", "table"])
def test_encodings_are_recognised_and_said(convert, capsys, encoding, export):
    name, content = EXPORTS[export]
    rows, _ = convert(name, content)
    capsys.readouterr()
    assert (
        convert(
            name,
            (json.dumps(json.loads(content), ensure_ascii=False) if name == "a.json" else content).encode(encoding),
        )[0]
        == rows
    )
    shown = capsys.readouterr().out
    assert (f"in {encoding.upper()}" in shown) == (encoding != "utf-8")


def annotate(text, *surfaces, label="Disease"):
    """The annotations of these strings in ``text``, in this order."""
    found, at = [], 0
    for surface in surfaces:
        at = text.index(surface, at)
        found.append(Annotation(label, at, at + len(surface), surface))
    return found


ORIGINAL = "😀 고혈압,\n당뇨병 & 간암"
MENTIONS = "고혈압", "당뇨병", "간암"


def shifted(text, change):
    """Annotations whose offsets count ``change(text)``, with the surfaces as they are there."""
    return annotate(change(text), *map(change, MENTIONS))


@pytest.mark.parametrize(
    ("kind", "exported", "annotations"),
    [
        ("CRLF line ends counted", ORIGINAL, shifted(ORIGINAL, lambda t: t.replace("\n", "\r\n"))),
        ("LF line ends counted", ORIGINAL.replace("\n", "\r\n"), shifted(ORIGINAL, str)),
        ("NFD counted", ORIGINAL, shifted(ORIGINAL, lambda t: unicodedata.normalize("NFD", t))),
        ("NFC counted", unicodedata.normalize("NFD", ORIGINAL), shifted(ORIGINAL, str)),
        ("HTML unescaped", html.escape(ORIGINAL), shifted(ORIGINAL, str)),
        ("HTML escaped", ORIGINAL, shifted(ORIGINAL, html.escape)),
        ("white space lost by the export", ORIGINAL[2:], annotate("\ufeff" + ORIGINAL[2:], *MENTIONS)),
        ("white space collapsed", ORIGINAL.replace(" ", "  "), shifted(ORIGINAL, str)),
        ("white space collapsed and stripped", f" \n{ORIGINAL} \n", shifted(ORIGINAL, str)),
        ("white space lost by the export", ORIGINAL, shifted(ORIGINAL, lambda t: t.replace(",\n", ", \n \n"))),
        ("UTF-16 units", ORIGINAL, None),
        ("UTF-8 bytes", ORIGINAL, None),
        ("CRLF line ends counted and UTF-16 units", ORIGINAL, None),
    ],
)
def test_offsets_into_another_form_are_repaired(kind, exported, annotations):
    if annotations is None:
        counted = ORIGINAL.replace("\n", "\r\n") if "CRLF" in kind else ORIGINAL
        name, width = ("utf-16-le", 2) if "16" in kind else ("utf-8", 1)
        annotations = [
            Annotation(a.label, *(len(counted[:at].encode(name)) // width for at in (a.start, a.end)), a.text)
            for a in annotate(counted, *MENTIONS)
        ]
    repaired, found = repair_offsets(exported, annotations)
    assert found == kind
    assert [unicodedata.normalize("NFC", exported[a.start : a.end]) for a in repaired] == list(MENTIONS)


@settings(max_examples=200, deadline=None)
@given(st.text("가나다 \n😀&é", min_size=1, max_size=20), st.data())
def test_right_offsets_are_never_changed(text, data):
    bounds = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted).filter(lambda b: b[0] < b[1])
    annotations = [Annotation("A", s, e, text[s:e]) for s, e in data.draw(st.lists(bounds, max_size=4))]
    assert repair_offsets(text, annotations) == (annotations, None)


@settings(max_examples=200, deadline=None)
@given(
    st.text("가나 \n😀", min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 15), st.integers(1, 3), st.text("가나 ", min_size=1, max_size=3)), min_size=1, max_size=3),
)  # fmt: skip
def test_a_repair_fits_all_surfaces_or_is_refused(text, raw):
    annotations = [Annotation("A", start, start + length, surface) for start, length, surface in raw]
    try:
        repaired, _ = repair_offsets(text, annotations)
    except ValueError:
        return
    assert all(" ".join(text[a.start : a.end].split()) == " ".join(a.text.split()) for a in repaired)


@pytest.mark.parametrize(
    ("text", "annotations", "reason"),
    [
        ("고혈압과 당뇨병", [Annotation("A", 0, 3, "당뇨병")], "no way of counting fits"),
        ("고혈압과 당뇨병", [Annotation("A", 5, 8, "당뇨병"), Annotation("A", 1, 4, "고혈압")], "no way of counting fits"),
        ("a 암 암", [Annotation("A", 5, 6, "암")], "no way of counting fits"),  # one or two blanks more
        ("고혈압과 당뇨병", [Annotation("A", 6, 9, "당뇨병"), Annotation("A", 0, 3)], "no text to prove a repair"),
    ],
)  # fmt: skip
def test_what_is_not_proven_is_not_repaired(text, annotations, reason):
    with pytest.raises(ValueError, match=reason):
        repair_offsets(text, annotations)


def test_a_repair_is_listed_and_counted(convert, capsys):
    text = "😀😀 당뇨병"
    value = {"start": 5, "end": 8, "text": "당뇨병", "labels": ["Disease"]}
    rows, report = convert("a.json", json.dumps([task(1, [{"type": "labels", "value": value}], text)]))
    assert spans(rows[0]) == {"Disease": [(3, 6)]}
    assert [(e["what"], e["kind"], e["record"], e["mentions"]) for e in report] == [
        ("repaired", "UTF-16 units", "1", 1)
    ]
    assert report[0]["file"].endswith("a.json")
    shown = capsys.readouterr().out
    assert "UTF-16 units" in shown
    assert "당뇨병" not in shown


def test_formats_without_surfaces_are_never_repaired(convert):
    rows, report = convert("a.jsonl", lines({"text": "😀 당뇨병", "label": [[3, 5, "Disease"]]}))
    assert spans(rows[0]) == {"Disease": [(3, 5)]}
    assert report == []
    with pytest.raises(DataError, match=r"line 1: a mention of 'Disease' has offsets \[3, 6\), outside its text of 5"):
        convert("a.jsonl", lines({"text": "😀 당뇨병", "label": [[3, 6, "Disease"]]}))


def test_annotators_who_differ_stop_the_conversion_and_ground_truth_decides(convert):
    differing = task(1, RESULT)
    differing["annotations"].append({"result": RESULT[:1], "was_cancelled": False})
    with pytest.raises(DataError, match="record 1: 2 annotations that differ"):
        convert("a.json", json.dumps([differing]))
    differing["annotations"][1]["was_cancelled"] = True
    assert spans(convert("a.json", json.dumps([differing]))[0][0]) == SPANS
    differing["annotations"][1] |= {"was_cancelled": False, "ground_truth": True}
    assert spans(convert("a.json", json.dumps([differing]))[0][0]) == {"Disease": [(0, 3)]}
    twice = [{"id": 1, "text": TEXT, "label": [r["value"] for r in RESULT[:n]], **ABOUT} for n in (1, 2)]
    with pytest.raises(DataError, match="task 1: 2 annotations that differ"):
        convert("a.json", json.dumps(twice))


def test_rows_with_labels_of_their_own_keep_them(convert, tmp_path):
    convert(*EXPORTS["doccano"])
    (tmp_path / "in" / "b.jsonl").write_text(lines({"text": OTHER, "entities": {"Test": []}}))
    rows, _ = convert(None, None, path=tmp_path / "in")
    assert [list(row["entities"]) for row in rows] == [["Disease", "Drug"], ["Disease", "Drug"], ["Test"]]


def test_ids_that_are_repeated_are_noticed(convert):
    rows, report = convert("a.jsonl", lines(*({"id": 1, "text": text, "label": []} for text in (TEXT, OTHER))))
    assert [row["id"] for row in rows] == ["1", "1"]
    assert [(e["what"], e["kind"]) for e in report] == [("noticed", "document with the id of an earlier one")]


def test_labels_are_composed(convert):
    rows, _ = convert(
        "a.jsonl", lines({"text": TEXT, "label": [[0, 3, unicodedata.normalize("NFD", "질병")], [4, 6, "질병"]]})
    )
    assert spans(rows[0]) == {"질병": [(0, 3), (4, 6)]}


def test_labels_are_chosen_and_others_counted(convert):
    rows, report = convert(*EXPORTS["doccano"], "--labels", "Drug", "Test")
    assert [spans(row) for row in rows] == [{"Drug": [(9, 12)], "Test": []}, {"Drug": [], "Test": []}]
    assert [(entry["kind"], entry["mentions"]) for entry in report] == [("mention of a label that is not asked for", 1)]


def test_the_labels_of_an_argilla_dataset_are_those_of_its_settings(convert, tmp_path):
    folder = tmp_path / "in" / ".argilla"
    folder.mkdir(parents=True)
    question = {"name": "spans", "settings": {"type": "span", "options": [{"value": "Disease"}, {"value": "Test"}]}}
    (folder / "settings.json").write_text(json.dumps({"questions": [question]}))
    rows, _ = convert(*EXPORTS["argilla"])
    assert list(rows[1]["entities"]) == ["Disease", "Test", "Drug"]


@pytest.mark.parametrize(
    ("tags", "runs", "begun"),
    [
        ("I-A I-A B-A O I-B", [(0, 2, "A"), (2, 3, "A"), (4, 5, "B")], 2),  # IOB1
        ("B-A I-A E-A S-A U-B", [(0, 3, "A"), (3, 4, "A"), (4, 5, "B")], 0),
        ("A-B A-I O A-B C-I", [(0, 2, "A"), (3, 4, "A"), (4, 5, "C")], 1),
        ("B-A L-A I-A", [(0, 2, "A"), (2, 3, "A")], 1),
        ("S-A I-A U-A L-A", [(0, 1, "A"), (1, 2, "A"), (2, 3, "A"), (3, 4, "A")], 2),
    ],
)
def test_tags_of_all_schemes(tags, runs, begun):
    assert decode_tags(tags.split()) == (runs, begun)
    assert decode_tags(encode_tags(len(tags.split()), runs)) == (runs, 0)


BAD = {
    "label_studio": ("a.json", '[{"data": {}, "annotations": [{"result": []}]}]', "record 1: no text: --text_column"),
    "label_studio, two texts": ("a.json", '[{"data": {"a": "가", "b": "나"}, "annotations": [{"result": []}]}]', "which of a, b"),
    "label_studio, HTML": ("a.json", json.dumps([task(1, [{"type": "hypertextlabels"}])]), "annotate with a Text tag"),
    "JSON": ("a.json", '[{"data": {}, "annotations": []}', "record 1: malformed JSON: no comma and no end"),
    "JSON, one object over lines": ("a.json", '{\n"text": "a"\n}', "line 1: malformed JSON: Expecting property name enclosed"),
    "JSON, a comma": ("a.json", '[{"data": {}, "annotations": []},]', "record 2: malformed JSON: Expecting value"),
    "JSON lines": ("a.jsonl", '{"text": "a", "label": []}\n{"text"\n', "line 2: malformed JSON"),
    "doccano, classes": ("a.jsonl", '{"text": "a", "label": ["good"]}', "sequence labelling"),
    "prodigy, ner.teach": ("a.jsonl", '{"text": "a", "answer": "accept", "_view_id": "ner", "spans": []}', "ner.teach"),
    "prodigy": ("a.jsonl", '{"text": "a", "answer": "accept", "spans": {}}', "'spans' must be a list of objects"),
    "argilla": ("a.json", '[{"fields": 1, "responses": {"s": [{"value": [{"start": 0}]}]}}]', "expected an object with a text"),
    "conll": ("a.conll", "당뇨병 B-X\n환자\n", "sentence at line 1: line 2: expected a word in the first column and a tag"),
    "conll, Label Studio": ("a.conll", "-DOCSTART- -X- O\n당뇨병 -X- _ B-X\n", "export JSON instead"),
    "klue": ("a.tsv", "## 1\t당\n당\tB-X\n뇨병\n", "sentence at line 1: line 3: expected CHARACTER<TAB>TAG", "--from", "klue"),
    "kbmc": ("a.csv", "Sentence,Tags\n당뇨병 환자,B-X\n", "1 tags in 'Tags', but other numbers of tokens: Sentence 2"),
    "gliner": ("a.json", '[{"tokenized_text": ["a"], "ner": [[0, 1, "X"]]}]', "'ner' names tokens 0 to 1, of 1 tokens"),
    "gliner2": ("a.jsonl", '{"text": "a", "entities": {"overall": ["a"]}}', "the label 'overall' cannot be used"),
    "gliner2, offsets": ("a.jsonl", lines({"text": "a", "entities": {"X": [{"text": "b", "start": 0, "end": 1}]}}), "no way of counting"),
    "table": ("a.csv", "text,date\n당뇨병,2025\n", "column 'date': mention 1 is not in the text"),
    "table, cells": ("a.csv", "text,X\n당뇨병\n", "line 2: the row has 1 cells, and the header 2"),
    "table, no text": ("a.csv", "문장,X\n당뇨병,당뇨\n", "no column 'text'; the columns are 문장, X: --text_column"),
    "table, quotes": ("a.csv", 'text,X\n"당뇨병,당뇨\n', "malformed CSV"),
    "xlsx": ("a.xlsx", "x", "cannot be read as XLSX"),
    "parquet": ("a.parquet", "x", "cannot be read as a table"),
    "words below a header": ("a.tsv", "token\tner\n환자는\tO\n급성\tB-X\n", "a table with one word in each row"),
    "words in a table": ("a.csv", "Sentence #,Word,Tag\nSentence: 1,환자는,O\n,급성,B-X\n", "a table with one word in each row"),
    "spacy": ("a.spacy", "x", "no .spacy file of a DocBin"),
    "brat": ("a.ann", "T1\tX 0 1\ta\n", "there is no a.txt beside it"),
    "text": ("a.txt", "당뇨병 환자", "not recognised as any format: name it with --from"),
    "no text": ("a.jsonl", '{"text": " ", "label": []}', "'text' is empty"),
    "empty": ("a.jsonl", "", "a.jsonl: the file is empty"),
    "only a byte order mark": ("a.jsonl", b"\xef\xbb\xbf", "a.jsonl: the file is empty"),
    "no record": ("a.csv", "text,X\n", "a.csv, the file: file without a record"),
    "empty list": ("a.json", "[]", "the list is empty", "--from", "doccano"),
    "empty, named": ("a.jsonl", "", "the file is empty", "--from", "doccano"),
    "bytes": ("a.jsonl", b"\x80\xff\xfe", "neither UTF-8, UTF-16 nor CP949"),
    "offsets": ("a.jsonl", '{"text": "a", "label": [["0", 1, "X"]]}', "the offsets of a mention of 'X' must be whole numbers"),
    "empty mention": ("a.jsonl", '{"text": "a", "label": [[1, 1, "X"]]}', "a mention of 'X' is empty: offsets [1, 1)"),
    "blank mention": ("a.jsonl", '{"text": "a b", "label": [[1, 2, "X"]]}', "mention 1 of 'X' is empty"),
    "label": ("a.jsonl", '{"text": "a", "label": [[0, 1, null]]}', "a label must be a string"),
    "before the text": ("a.jsonl", '{"text": "a", "label": [[-1, 1, "X"]]}', "begins before its text: offsets [-1, 1)"),
    "score": ("a.jsonl", '{"text": "a", "entities": {"X": [{"text": "a", "start": 0, "end": 1, "score": NaN}]}}', "must be a number from 0 to 1"),
    "gliner2, mention": ("a.jsonl", '{"text": "a", "entities": {"X": [1]}}', "a mention of 'X' must be a string or an object"),
    "label_studio, no label": ("a.json", json.dumps([task(1, [{"type": "labels", "value": {"start": 0, "end": 1, "labels": []}}])]), "a mention has no 'labels'"),
    "table, two columns": ("a.csv", "text,X,X\n당뇨병,당뇨,병\n", "two columns 'X'"),
    "table, brackets": ("a.csv", f'text,X\n당뇨병,"{"[" * 100_000}"\n', "column 'X': mention 1 is not in the text"),
    "table, JSON": ("a.csv", '{"text":"a","label":[]}\n', "line 1: malformed CSV", "--from", "table"),
    "kbmc, no column": ("a.csv", "Sentence,Tags\n당뇨병,B-X\n", "no column 'text'; the columns are Sentence, Tags", "--text_column", "text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_file_and_record(convert, tmp_path, case):
    (tmp_path / "rows.jsonl").write_text("as it was")
    name, content, reason, *flags = BAD[case]
    with pytest.raises(DataError) as caught:
        convert(name, content, *flags)
    assert reason in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "당뇨병" not in str(caught.value)
    assert (tmp_path / "rows.jsonl").read_text() == "as it was"
    assert not list(tmp_path.glob("*.partial"))


def test_mentions_that_are_not_in_the_text_stay_strings_and_none_is_kept_twice(convert):
    row = {
        "text": TEXT,
        "entities": {"Drug": ["약", "인슐린", "주사", "약", {"text": "인슐린", "start": 9, "end": 12}]},
    }
    rows, report = convert("a.jsonl", lines(row))
    assert rows[0]["entities"]["Drug"] == ["약", {"text": "인슐린", "start": 9, "end": 12}, "주사"]
    assert {entry["kind"]: entry["mentions"] for entry in report} == {
        "mention that is not in its text: kept as a string": 2,
        "mention that is given twice: kept once": 2,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 20) | st.sampled_from(["", "당", "Drug", "accept"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "start", "label"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("export", [name for name, (file, _) in EXPORTS.items() if file.endswith((".json", ".jsonl"))])
def test_whatever_a_record_holds_it_is_read_or_refused_in_one_line(tmp_path, export):
    name, content = EXPORTS[export]
    records = json.loads(content) if name.endswith(".json") else [json.loads(line) for line in content.splitlines()]
    kind = FORMATS[next(each for each in sorted(FORMATS, key=len, reverse=True) if export.startswith(each))]

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def check(data):
        record = copy.deepcopy(data.draw(st.sampled_from(records)))
        at, path = record, []
        while isinstance(at, dict | list) and at and (not path or data.draw(st.integers(0, 4))):
            key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
            path.append((at, key))
            at = at[key]
        if path:
            path[-1][0][path[-1][1]] = data.draw(JSON)
        (tmp_path / "a.jsonl").write_text(lines(record))
        account = Account()
        reading = Reading(kind.records, kind.parse, FormatOptions(), (), skip_bad=True)
        for _, row, _ in reading.rows(Source(tmp_path / "a.jsonl", "a"), account):
            parse_row(row, "a")
        assert not any("\n" in entry.kind or TEXT in entry.kind for entry in account.entries)

    check()


def test_bad_records_are_skipped_counted_and_listed(convert, capsys):
    bad = '{"text": "a"\n'
    rows, report = convert(
        "a.jsonl", lines({"text": TEXT, "label": []}) + bad + lines({"text": "b", "label": [1]}), "--on_bad_row", "skip"
    )
    assert [row["id"] for row in rows] == ["a:1"]
    assert [(entry["what"], entry["record"]) for entry in report] == [("skipped", "line 2"), ("skipped", "line 3")]
    assert "bad records skipped" in capsys.readouterr().out


@pytest.mark.parametrize(("suffix", "package"), [(".spacy", "spacy"), (".xlsx", "openpyxl")])
def test_a_package_that_is_missing_is_named(convert, monkeypatch, suffix, package):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    content = b"x"
    if suffix == ".xlsx":
        pytest.importorskip("openpyxl", reason="openpyxl is not installed")
        pandas.DataFrame({"text": [TEXT]}).to_excel(file := io.BytesIO(), index=False)
        content = file.getvalue()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"a{suffix}: .* files need `pip install .*{package}`"):
        convert(f"a{suffix}", content)


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_the_index_of_a_table_is_no_column_and_columns_have_names_of_their_own(convert, tmp_path, name):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    if name == "a.xlsx":
        pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    table = pandas.DataFrame([[TEXT, "당뇨병", "인슐린"]], columns=["text", "Disease", "Drug"])
    write = table.to_csv if name == "a.csv" else table.to_excel
    write(tmp_path / name)  # with the index, whose column has no name
    assert spans(convert(None, None, path=tmp_path / name)[0][0]) == SPANS
    table.columns = ["text", "Disease", "Disease"]
    write = table.to_csv if name == "a.csv" else table.to_excel
    write(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: the table has two columns 'Disease'"):
        convert(None, None, path=tmp_path / name)


def test_a_parquet_file_can_be_a_table_of_texts_only(convert, tmp_path):
    from datasets import Dataset

    path = tmp_path / "a.parquet"
    Dataset.from_dict({"text": [TEXT, OTHER], "Disease": ["당뇨병", None]}).to_parquet(path)
    assert [spans(row) for row in convert(None, None, "--from", "table", path=path)[0]] == [
        {"Disease": [(0, 3)]},
        {"Disease": []},
    ]
    Dataset.from_dict({"text": [TEXT], "Disease": [1]}).to_parquet(path)
    with pytest.raises(DataError, match="row 1: column 'Disease' holds no texts"):
        convert(None, None, "--from", "table", path=path)


@pytest.mark.parametrize("export", ["doccano", "conll", "klue", "kbmc", "table"])
def test_a_file_may_end_its_lines_with_cr_alone(convert, export):
    name, content = EXPORTS[export]
    rows, _ = convert(name, content)
    assert convert(name, content.replace("\n", "\r"))[0] == rows


@pytest.mark.parametrize("to", ["klue", "conll"])
def test_the_character_nul_is_not_taken_for_utf_16(convert, monkeypatch, tmp_path, to):
    text = "당뇨병\x00 환자 12"
    row = {"id": "a", "text": text, "entities": {"Disease": [{"text": "당뇨병", "start": 0, "end": 3}]}}
    (tmp_path / "a.jsonl").write_text(lines(row))
    flags = "--to", to, "--word_splitter", "char", "--output_file", tmp_path / "there.tsv"
    call(monkeypatch, tmp_path / "a.jsonl", *flags)
    rows, _ = convert(None, None, path=tmp_path / "there.tsv")
    assert rows == [row]


def test_a_link_to_a_directory_above_is_not_followed(convert, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").symlink_to(folder)
    (folder / "sub" / "b.jsonl").write_text(EXPORTS["doccano"][1])
    (folder / "c.jsonl").write_text("")
    rows, report = convert(None, None, path=folder)
    assert [row["id"] for row in rows] == ["1", "2"]
    assert [(entry["kind"], entry["file"]) for entry in report] == [("the file is empty", str(folder / "c.jsonl"))]


def test_parts_of_a_mention_may_stand_in_any_order(convert, tmp_path):
    (tmp_path / "a.txt").write_text("간 및 폐 전이")
    (tmp_path / "a.ann").write_text("T1\tDisease 6 8;0 1\t전이 간\n")
    rows, _ = convert(None, None, "--on_discontinuous", "join", path=tmp_path / "a.ann")
    assert spans(rows[0]) == {"Disease": [(0, 8)]}


def test_two_places_that_fit_are_ambiguous():
    # Counted in UTF-16 units it is the first, and with white space collapsed the second.
    with pytest.raises(ValueError, match="it could be in several places"):
        repair_offsets("\n\n😀암.암", [Annotation("A", 4, 5, "암")])


def test_the_output_is_no_input(convert, monkeypatch, tmp_path):
    convert(*EXPORTS["doccano"])
    with pytest.raises(DataError, match="would be written over, but is also an input"):
        call(monkeypatch, tmp_path, "--output_file", tmp_path / "rows.jsonl")


@pytest.mark.parametrize("suffix", [".report.jsonl", ".config.xml"])
def test_files_beside_the_output_are_no_input_either(convert, monkeypatch, tmp_path, suffix):
    source = tmp_path / f"out{suffix}"
    source.write_text(EXPORTS["doccano"][1])
    with pytest.raises(DataError, match="would be written over, but is also an input"):
        call(monkeypatch, source, "--to", "label_studio", "--output_file", tmp_path / "out")
    assert source.read_text() == EXPORTS["doccano"][1]


def test_the_command_line_takes_inputs_without_a_flag(tmp_path):
    (tmp_path / "a.jsonl").write_text(EXPORTS["doccano"][1])
    (tmp_path / "b.json").write_text(EXPORTS["label_studio"][1])
    script, output = "scripts/convert.py", tmp_path / "rows.jsonl"
    result = run(PYTHON, script, tmp_path / "b.json", tmp_path / "a.jsonl", "--output_file", output)
    assert result.returncode == 0, result.stderr
    assert len(read(output)) == 4
    assert f"train_gliner2_korean_encoder.py --train_file {output}" in result.stdout
    one_line_error(run(PYTHON, script, tmp_path / "c", "--output_file", output), "c: no such file or directory")
    one_line_error(run(PYTHON, script, tmp_path, "--from", "word", "--output_file", output), "invalid choice: 'word'")
