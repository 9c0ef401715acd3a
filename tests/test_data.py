from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from glinerko.common import DataError
from glinerko.corpus.matching import find_mention, without_spaces
from glinerko.corpus.reading import label_schema, load_rows, require_labels
from glinerko.corpus.rows import Example
from glinerko.corpus.splits import fold_rows, shared_texts, split_rows

TEXT = "당뇨병 환자에게 인슐린을 투여한다."
DESCRIPTIONS = {"Disease": "질병", "Drug": "약물"}


def read(path: str, **options) -> list[Example]:
    return [Example.from_row(row) for row in load_rows(path, **options)[0]]


def test_three_row_shapes_read_the_same(write_rows):
    strings = {"text": TEXT, "entities": {"Drug": ["인슐린"]}, "entity_descriptions": DESCRIPTIONS, "id": "a"}
    offsets = {**strings, "entities": {"Drug": [{"text": "인슐린", "start": 9, "end": 12}]}}
    output = {"entities": {"Drug": ["인슐린"]}, "entity_descriptions": DESCRIPTIONS}
    first, second, third = read(write_rows(strings, offsets, {"input": TEXT, "output": output, "id": "a"}))
    assert first == second == third
    assert first.gold_spans == {(9, 12, "Drug")}
    assert first.labels == ("Disease", "Drug")


def test_label_set_is_the_union_of_entities_and_descriptions(write_rows):
    path = write_rows({"text": TEXT, "entities": {"Test": []}, "entity_descriptions": DESCRIPTIONS})
    assert set(read(path)[0].labels) == {"Disease", "Drug", "Test"}


def test_label_order_is_the_corpus_s_and_never_tells_which_occur(write_rows):
    rows = [
        {"text": TEXT, "entities": {"Drug": ["인슐린"]}, "entity_descriptions": DESCRIPTIONS},
        {"text": TEXT, "entities": {"Disease": ["당뇨병"]}, "entity_descriptions": DESCRIPTIONS},
    ]
    assert label_schema(load_rows(write_rows(*rows))[0]).labels == ("Disease", "Drug")
    assert label_schema(load_rows(write_rows(*rows[::-1]))[0]).labels == ("Disease", "Drug")


def test_labels_option_sets_every_row_s_labels(write_rows):
    path = write_rows({"text": TEXT, "entities": {"Drug": ["인슐린"], "Disease": ["당뇨병"]}})
    (example,) = read(path, labels=["Drug", "Procedure"])
    assert example.labels == ("Drug", "Procedure")
    assert {m.label for m in example.mentions} == {"Drug"}


@pytest.mark.parametrize(
    ("text", "mention", "expected"),
    [
        ("암과 위암", "암", [(0, 1), (4, 5)]),
        ("허리통증이 있다", "허리 통증", [(0, 4)]),
        ("허리\n통증이 있다", "허리통증", [(0, 5)]),
        ("허리 통증과 허리통증", "허리통증", [(7, 11)]),  # exact ones win
        ("C-반응단백(CRP)", "(CRP)", [(6, 11)]),
        ("두통", "복통", []),
    ],
)
def test_mentions_are_found_exactly_first_then_ignoring_white_space(text, mention, expected):
    assert find_mention(text, mention) == expected


BAD_ROWS = {
    "malformed JSON": '{"text": "가나',
    "'text' must be a string, found nothing": {"entities": {}},
    "'text' must be a string, found a number": {"text": 3, "entities": {}},
    "'text' is empty": {"text": "  ", "entities": {}},
    "'entities' must be an object of label: [mention, ...], found nothing": {"text": TEXT},
    "'entities' must be an object of label: [mention, ...], found a list": {"text": TEXT, "entities": []},
    "the mentions of 'Drug' must be a list, found a string": {"text": TEXT, "entities": {"Drug": "인슐린"}},
    "mention 1 of 'Drug' is empty": {"text": TEXT, "entities": {"Drug": [" "]}},
    "mention 2 of 'Drug' must be a string": {"text": TEXT, "entities": {"Drug": ["인슐린", 3]}},
    "outside the text": {"text": TEXT, "entities": {"Drug": [{"text": "x", "start": 9, "end": 99}]}},
    "is not the mention": {"text": TEXT, "entities": {"Drug": [{"text": "인슐린", "start": 0, "end": 3}]}},
    "whole numbers": {"text": TEXT, "entities": {"Drug": [{"text": "당", "start": False, "end": 1}]}},
    "a label is empty": {"text": TEXT, "entities": {"": []}},
    "the description of 'Drug' must be a string": {"text": TEXT, "entities": {}, "entity_descriptions": {"Drug": 1}},
    "surrogate": '{"text": "\\ud800", "entities": {}}',
    "expected an object": "[1, 2]",
    "'output' must be an object": {"input": TEXT, "output": "x"},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_bad_row_is_one_line_with_file_line_and_reason_but_no_text(write_rows, reason):
    path = write_rows({"text": TEXT, "entities": {}}, BAD_ROWS[reason])
    with pytest.raises(DataError) as caught:
        load_rows(path)
    message = str(caught.value)
    assert f"{path}, line 2: " in message
    assert reason in message
    assert "\n" not in message
    assert "환자" not in message


def test_bad_rows_can_be_skipped_and_are_counted(write_rows):
    rows, skipped = load_rows(write_rows({"text": TEXT, "entities": {}}, *BAD_ROWS.values()), on_bad_row="skip")
    assert (len(rows), skipped) == (1, len(BAD_ROWS))


def test_missing_empty_and_wrongly_encoded_files_are_named(tmp_path, write_rows):
    with pytest.raises(DataError, match="no such file"):
        load_rows(str(tmp_path / "missing.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="the file is empty"):
        load_rows(str(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="only blank lines"):
        load_rows(write_rows("", " "))
    (tmp_path / "cp949.jsonl").write_bytes('{"text": "당뇨병", "entities": {}}'.encode("cp949"))
    with pytest.raises(DataError, match=r"cp949.jsonl, line 1: not UTF-8 \(byte 11"):
        load_rows(str(tmp_path / "cp949.jsonl"))


def test_a_changed_file_is_read_again(tmp_path, write_rows):
    assert len(read(write_rows({"text": TEXT, "entities": {}}))) == 1
    assert len(read(write_rows({"text": TEXT, "entities": {}}, {"text": TEXT, "entities": {}}))) == 2


def test_a_datasets_directory_reads_like_a_file(tmp_path, write_rows):
    write_rows({"text": TEXT, "entities": {"Drug": ["인슐린"], "Disease": []}}, name="train.jsonl")
    rows, _ = load_rows(dataset_name=str(tmp_path))
    assert Example.from_row(rows[0]).gold_spans == {(9, 12, "Drug")}
    with pytest.raises(DataError, match="'nowhere/here'"):
        load_rows(dataset_name="nowhere/here")


def test_split_is_seeded_and_keeps_identical_texts_together(write_rows):
    texts = [f"{number // 2}번 환자" for number in range(40)]
    rows, _ = load_rows(write_rows(*({"text": text, "entities": {}} for text in texts)))
    training, validation = split_rows(rows, 0.2, seed=1)
    assert len(training) + len(validation) == 40
    assert len(validation) == 8
    assert not shared_texts(training, validation)
    assert split_rows(rows, 0.2, seed=1)[1]["text"][:] == validation["text"][:]
    assert split_rows(rows, 0.2, seed=2)[1]["text"][:] != validation["text"][:]


def test_folds_part_the_rows_and_keep_identical_texts_together(write_rows):
    texts = [f"{number // 2}번 환자" for number in range(40)]
    rows, _ = load_rows(write_rows(*({"text": text, "entities": {}} for text in texts)))
    folds = fold_rows(rows, 3, seed=1)
    assert sorted(len(fold) for fold in folds) == [12, 14, 14]
    assert sorted(identifier for fold in folds for identifier in fold["id"]) == sorted(rows["id"])
    assert not shared_texts(folds[0], folds[1])
    assert [fold["id"][:] for fold in fold_rows(rows, 3, seed=1)] == [fold["id"][:] for fold in folds]
    with pytest.raises(DataError, match="20 different texts"):
        fold_rows(rows, 21, seed=1)


def test_one_text_cannot_be_split(write_rows):
    rows, _ = load_rows(write_rows(*[{"text": TEXT, "entities": {}}] * 3))
    with pytest.raises(DataError, match="--validation_file"):
        split_rows(rows, 0.1, seed=1)


def test_labels_that_training_lacks_are_refused(write_rows):
    training, _ = load_rows(write_rows({"text": TEXT, "entities": {"Drug": []}}))
    test, _ = load_rows(write_rows({"text": TEXT, "entities": {"Disease": ["당뇨병"]}}))
    with pytest.raises(DataError, match="Disease"):
        require_labels(test, label_schema(training), "test.jsonl")


texts = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    ["당뇨병", "당뇨병 환자", "\ud800", " ", ""]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_subnormal=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
mentions = texts | st.fixed_dictionaries({"text": texts, "start": values, "end": st.integers(-2, 9)}) | values
bodies = {
    "entities": st.dictionaries(texts, st.lists(mentions, max_size=3), max_size=3) | values,
    "entity_descriptions": st.dictionaries(texts, texts, max_size=2) | values,
}
rows_of_any_kind = (
    st.fixed_dictionaries({"text": texts, **bodies}, optional={"id": values})
    | st.fixed_dictionaries({"input": texts | values, "output": st.fixed_dictionaries({}, optional=bodies) | values})
    | values
)
lines = rows_of_any_kind.map(json.dumps) | st.text(max_size=20).map(
    lambda line: line.replace("\n", "").replace("\r", "")
)


@pytest.mark.slow(6)
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(lines, min_size=100, max_size=200))
def test_rows_of_any_kind_are_read_whole_or_named(tmp_path, content):
    path = tmp_path / "fuzz.jsonl"
    content = [json.dumps({"text": TEXT, "entities": {"Drug": ["인슐린"]}}), *content]
    path.write_bytes("\n".join(content).encode("utf-8", "surrogatepass"))
    rows, bad = load_rows(str(path), on_bad_row="skip")
    assert len(rows) + bad == sum(bool(line.strip()) for line in content)
    for row in rows:
        raw = json.loads(content[int(row["place"].removeprefix("line ")) - 1])
        body = raw["output"] if raw.get("input") is not None and raw.get("output") is not None else raw
        assert row["text"] == (raw["input"] if body is not raw else raw["text"])
        assert len(row["mentions"]) == sum(len(found or ()) for found in body["entities"].values())
        for mention in row["mentions"]:
            for span in mention["spans"]:
                assert without_spaces(row["text"][slice(*span)]) == without_spaces(mention["text"])
    if bad:
        with pytest.raises(DataError, match=r"fuzz\.jsonl, line \d+: "):
            load_rows(str(path))
