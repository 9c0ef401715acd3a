"""Labels: checked once for every caller, and asked for only if a row names them."""

from __future__ import annotations

import json
import unicodedata

import pytest
from conftest import SAMPLE, split_and_align
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glinerko import common
from glinerko.common import DataError, read_yaml
from glinerko.corpus import reading
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.report import report_data
from glinerko.corpus.rows import Example
from glinerko.corpus.schema import LabelSchema, check_labels
from glinerko.corpus.splits import load_splits

TEXT = "당뇨병 환자에게 인슐린을 투여한다."
ROW = {"text": TEXT, "entities": {"Drug": ["인슐린"], "Disease": ["당뇨병"]}}
DECOMPOSED = unicodedata.normalize("NFD", "질병")
BAD_LABELS = {
    "the label 'Drug' is given twice": ["Drug", "Disease", "Drug"],
    f"the label '{DECOMPOSED}' is given twice": ["질병", DECOMPOSED],
    "a label is empty": ["Drug", ""],
    r"the label 'Drug\\u2028s' holds a line break": ["Drug\u2028s"],
    r"the label 'a\\x00b' holds a line break or a control character": ["a\x00b"],
    "the label 'overall' cannot be used": ["Drug", "overall"],
    r"\[SEP_TEXT\] is a token of gliner2's prompts": ["질병 [SEP_TEXT]"],
    "a label is empty ": ["\u200b \n"],
    "the label ' Drug' has white space around it": [" Drug"],
    r"the label 'Drug\\u3000' has white space around it": ["Drug\u3000"],
    r"the label '\\ufeffDrug' has white space around it": ["\ufeffDrug"],
    "found a truth value .False.": [False, True],
    "found a number": ["Drug", 1],
    "found nothing": [None],
    "half of a surrogate pair": ["\ud800"],
}


@pytest.mark.parametrize("message", BAD_LABELS)
def test_bad_labels_are_refused_by_every_caller(write_rows, message):
    labels = BAD_LABELS[message]
    for use in (
        lambda: check_labels(labels),
        lambda: LabelSchema(tuple(labels), {}),
        lambda: load_rows(write_rows(ROW), labels=labels),
        lambda: label_schema(load_rows(write_rows(ROW))[0], labels),
    ):
        with pytest.raises(DataError, match=message.strip()):
            use()


def test_a_string_is_no_list_of_labels():
    with pytest.raises(DataError, match="must be a list, found the string 'Drug'"):
        check_labels("Drug")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({" Drug": ["인슐린"]}, "white space around"),
        ({"질병": [], DECOMPOSED: []}, "given twice"),
    ],
)
def test_bad_labels_of_a_row_are_named_with_the_line(write_rows, labels, message):
    with pytest.raises(DataError, match=rf"line 2: the label .*{message}"):
        load_rows(write_rows(ROW, {"text": TEXT, "entities": labels}))


def test_a_label_in_another_unicode_form_is_the_same_label(write_rows):
    rows, _ = load_rows(
        write_rows(
            {"text": TEXT, "entities": {DECOMPOSED: ["당뇨병"]}, "entity_descriptions": {"질병": "병"}},
            {"text": TEXT, "entities": {"질병": []}},
        ),
        labels=[DECOMPOSED],
        named_labels_only=True,
    )
    assert label_schema(rows) == LabelSchema(("질병",), {DECOMPOSED: "병"})
    assert Example.from_row(rows[0]).gold_spans == {(0, 3, "질병")}


def is_label(text: str) -> bool:
    try:
        return bool(check_labels([text]))
    except DataError:
        return False


labels = st.lists(
    st.text(max_size=8).filter(is_label) | st.sampled_from(["질병[/급성]", "약|물", "$\\frac$", "<b>", "no", "1"]),
    min_size=1,
    max_size=4,
    unique_by=lambda label: unicodedata.normalize("NFC", label),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels, st.sets(st.integers(0, 3)))
def test_any_label_is_read_and_written_unchanged(tmp_path, names, described):
    row = {
        "text": TEXT,
        "entities": {name: ["인슐린"] for name in names},
        "entity_descriptions": {name: f"{name}!" for index, name in enumerate(names) if index in described},
    }
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(json.dumps(row), encoding="utf-8")
    rows, _ = load_rows(str(first))
    reading.write_rows(rows, second)
    again, _ = load_rows(str(second))
    assert label_schema(again) == label_schema(rows)
    assert set(label_schema(rows).labels) == {unicodedata.normalize("NFC", name) for name in names}
    assert set(Example.from_row(again[0]).mentions) == set(Example.from_row(rows[0]).mentions)
    assert label_schema(rows, names).labels == check_labels(names)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (["disease", "Drug"], r"label disease \(Disease is close\); .* 1 of 2 mentions"),
        (["Drugs"], r"label Drugs \(Drug is close\); the rows name Drug, Disease; 2 of 2 mentions"),
        (["Disease,Drug"], r"\(write Disease Drug, without commas\)"),
        (["disease, drug"], r"\(write Disease Drug, without commas\)"),
        (["Drug", "Gene"], "label Gene; the rows name Drug, Disease; 1 of 2 mentions would be left out"),
    ],
)
def test_a_label_that_no_row_names_stops_training_and_says_what_is_close(write_rows, asked, hint):
    path = write_rows(ROW)
    with pytest.raises(DataError, match=rf"rows\.jsonl: no row names the .*{hint}"):
        load_splits(path, path, labels=asked)
    assert load_rows(path, labels=asked)[0]["labels"][:] == [asked]  # reading alone does not ask


def test_a_label_that_is_only_described_is_named(write_rows):
    path = write_rows({**ROW, "entity_descriptions": {"Procedure": "시술"}})
    splits, _, _ = load_splits(path, path, labels=["Drug", "Procedure"])
    assert splits["training"]["labels"][:] == [["Drug", "Procedure"]]


def test_mentions_left_out_are_counted(model, schema):
    rows, _ = load_rows(str(SAMPLE / "test.jsonl"), labels=["Disease"])
    whole, _ = load_rows(str(SAMPLE / "test.jsonl"))
    chosen = LabelSchema(("Disease",), {})
    report = report_data(split_and_align(rows, model.processor, chosen, max_width=12), chosen, "test")
    all_mentions = sum(map(len, whole["mentions"]))
    assert report.to_dict()["mentions_left_out"] == all_mentions - report.mentions > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("labels: [no, yes]", "line 1: 'no' is a truth value in YAML; put it in quotes"),
        ("seed: 1\nlabels:\n- Drug\n- on", "line 4: 'on' is a truth value"),
        ("labels: [Drug, null]", "line 1: 'null' is nothing"),
        ("labels: [Drug]\nseed: 1\nlabels: [Disease]", "line 3: the key 'labels' is given twice"),
        ("- train:\n    seed: 1\n    seed: 2", "line 3: the key 'seed' is given twice"),
        ('{"seed": 1,\n "seed": 2}', "line 2: the key 'seed' is given twice"),
        ("gliner: {no: x}", "line 1: 'no' is a truth value"),
        ("seed: [1", "line 1: expected ',' or ']'"),
    ],
)
def test_yaml_that_would_drop_or_change_a_word_is_refused_with_its_line(tmp_path, content, message):
    file = tmp_path / "options.yaml"
    file.write_text(content)
    with pytest.raises(DataError) as caught:
        read_yaml(file, "`option: value`", lambda content: content)
    assert str(caught.value).startswith(f"{file}: expected `option: value` ({message}")


def test_yaml_keeps_truth_values_of_options_quoted_words_and_merged_keys(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("a: &a {x: yes, y: ['no', \"null\"]}\nb: {<<: *a, x: off}")
    content = common.read_yaml(file, "", lambda content: content)
    assert content["b"] == {"x": False, "y": ["no", "null"]}
