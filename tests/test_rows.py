"""Rows that hold more, or less, than entities: nothing is dropped without a word, and nothing crashes."""

from __future__ import annotations

import pytest
import torch
from conftest import split_and_align

from glinerko.common import DataError, read_json_lines, write_json_lines
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.report import measure_reach, report_data
from glinerko.corpus.rows import Example
from glinerko.corpus.splits import load_splits
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.corpus.words import load_word_splitter
from glinerko.sharing.tables import data_table, plain_rows
from glinerko.verification import checks

TEXT = "당뇨병으로 인슐린을 투여한다."
ROW = {"text": TEXT, "entities": {"Disease": ["당뇨병"], "Drug": ["인슐린"]}}
EMPTY = {"text": "특이 소견 없음", "entities": {}}
TASKS = {
    "classifications": [{"task": "상태", "labels": ["호전", "악화"], "true_label": ["호전"]}],
    "relations": [{"치료": {"head": "인슐린", "tail": "당뇨병"}}],
    "json_structures": [{"처방": {"약물": "인슐린"}}],
}


def align(model, rows):
    return split_and_align(rows, model.processor, label_schema(rows), max_width=12)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"text": "당뇨병과 폐렴", "entities": {"Disease": ["당뇨병"], "Disease": ["폐렴"]}}', "Disease"),
        ('{"text": "당뇨병", "text": "폐렴", "entities": {}}', "text"),
        ('{"text": "폐렴", "entities": {"Disease": [{"text": "폐렴", "start": 0, "start": 0, "end": 2}]}}', "start"),
        ('{"input": "폐렴", "output": {"entities": {}}, "output": {"entities": {}}}', "output"),
    ],
)
def test_a_key_that_stands_twice_is_a_bad_row(write_rows, line, key):
    path = write_rows(ROW, line)
    with pytest.raises(DataError, match=f"line 2: the key '{key}' is given twice in one object"):
        load_rows(path)
    rows, skipped = load_rows(path, on_bad_row="skip")
    assert (len(rows), skipped) == (1, 1)


@pytest.mark.parametrize("spelling", [("input", "output"), ("text", "schema"), ("text", None)])
def test_keys_that_are_not_used_are_counted_by_name(write_rows, model, spelling):
    text, body = spelling
    content = {"entities": ROW["entities"], **TASKS, "json_descriptions": {}, "entity_attributes": {"Drug": ["약효"]}}
    row = {text: TEXT, **({body: content} if body else content), "source": "외래", "note": None}
    rows, _ = load_rows(write_rows(row, row, ROW))
    assert Example.from_row(rows[0]).gold_spans == Example.from_row(rows[2]).gold_spans
    report = report_data(align(model, rows), label_schema(rows), "")
    assert report.to_dict()["unused_keys"] == {"source": 2, "entity_attributes": 2}
    assert {name: task.documents for name, task in report.tasks.items()} == dict.fromkeys(("상태", "치료", "처방"), 2)
    shown = plain_rows(data_table({"training": report}))
    assert {(f"rows with the unused key {key}", "2") for key in ("source", "entity_attributes")} <= set(shown)


def test_a_row_with_other_tasks_is_one_without_labels_only_if_entities_were_looked_for(write_rows, model):
    found_none = {"text": "두통", "entities": {}, **TASKS}
    rows, _ = load_rows(write_rows(ROW, found_none, {"text": "두통", **TASKS}))
    schema = label_schema(rows)
    report = report_data(align(model, rows), schema, "")
    assert (report.documents_without_labels, report.unused_keys) == (1, {})
    windows = [window_from_row(row) for row in training_windows(align(model, rows), schema)]
    assert [window.labels for window in windows] == [("Disease", "Drug"), ("Disease", "Drug"), ()]


@pytest.mark.parametrize("keys", [{}, {"tokenizer": "x"}, {"text": None}])
def test_a_row_of_gliner_v1_is_named_with_what_to_do(write_rows, keys):
    row = {"tokenized_text": ["당뇨병", "으로"], "ner": [[0, 0, "Disease"]], **keys}
    with pytest.raises(
        DataError, match=r"line 1: a row of GLiNER v1 .*'text'.*'entities': \{label: \[mention, \.\.\.\]\}"
    ):
        load_rows(write_rows(row))


def test_documents_without_a_finding_are_negatives_of_every_label(write_rows, model):
    rows, _ = load_rows(write_rows(EMPTY, ROW, {"text": "두통", "entities": {"Drug": []}}))
    schema = label_schema(rows)
    windows = [window_from_row(row) for row in training_windows(align(model, rows), schema)]
    assert [window.labels for window in windows] == [("Disease", "Drug"), ("Disease", "Drug"), ("Drug",)]
    assert not windows[0].targets
    model.train()
    loss = model(model.processor.collate(windows[:1], schema))["total_loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    report = report_data(align(model, rows), schema, "")
    assert (report.documents_without_labels, report.documents_with_all_labels) == (1, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([EMPTY] * 3, "no mention in 3 documents"),
        ([{**EMPTY, "entity_descriptions": {"Drug": "약물"}}] * 3, "no mention in 3 documents"),
        ([{"text": "두통", "entities": {"Drug": ["인슐린"]}}] * 3, "none of 3 mentions is in its text"),
    ],
)
def test_a_corpus_without_a_mention_stops_training(write_rows, rows, message):
    empty, whole = write_rows(*rows, name="empty.jsonl"), write_rows(ROW)
    for training, validation in ((empty, None), (empty, whole), (whole, empty)):
        with pytest.raises(DataError, match=rf"empty\.jsonl: {message}: nothing can be learned"):
            load_splits(training, validation)


def test_rows_without_any_label_are_one_line(write_rows):
    with pytest.raises(DataError, match="the rows name no label"):
        label_schema(load_rows(write_rows(EMPTY))[0])


def test_the_reach_of_nothing_is_no_number(write_rows, model):
    rows, _ = load_rows(write_rows({"text": "두통", "entities": {"Drug": ["인슐린"]}}))
    report = report_data(align(model, rows), label_schema(rows), "")
    assert report.to_dict()["reach"] is None
    assert plain_rows(data_table({"training": report}))[-1] == ("reach of mentions in the text", "–")
    reach = measure_reach(rows, {"whitespace": load_word_splitter("whitespace")}, [8])
    assert checks.check_reach(reach, "whitespace", 8).status is checks.Status.SKIP


@pytest.mark.parametrize(
    "line",
    ["자누비아,NNP,0", "자누비아, NNP", "자누비아;NNP;0", '"자누비아","NNP"', "Keytruda,NNP,0", "알파,베타"],
)
def test_a_user_dictionary_written_as_csv_is_refused(tmp_path, line):
    file = tmp_path / "words.csv"
    file.write_text(f"인슐린\tNNP\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"words\.csv, line 2: expected .*with tabs, not commas"):
        load_word_splitter("korean", user_dictionary=file)


def test_a_comma_inside_a_chemical_name_is_no_csv(tmp_path):
    names = ("1,25-디히드록시비타민", "N,N-디메틸아세트아미드", "2,3-DPG", "1,000단위")
    file = tmp_path / "words.tsv"
    file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    words = load_word_splitter("korean", user_dictionary=file).user_dictionary
    assert [form for form, _, _ in words] == list(names)


def test_a_line_separator_in_a_string_is_no_new_line(tmp_path):
    records = [{"id": "a\u2028b"}, {"id": "c\u0085d"}]  # JSON leaves them as they are
    write_json_lines(tmp_path / "x.jsonl", records)
    assert read_json_lines(tmp_path / "x.jsonl") == records
