from __future__ import annotations

import json

import pytest
from conftest import split_and_align

from glinerko.common import DataError
from glinerko.corpus.alignment import Outcome, classify_spans
from glinerko.corpus.processor import Window
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.report import report_data
from glinerko.corpus.rows import Example, Mention
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.windows import aligned_windows, training_windows, window_from_row
from glinerko.model.swap import swap_encoder

WORDS = [(0, 3), (3, 5), (6, 9), (9, 10)]  # 당뇨병|으로 인슐린|을


def outcomes(*mentions: Mention, windows=((0, 4),), max_width: int = 4) -> list[list[Outcome]]:
    example = Example("a", "당뇨병으로 인슐린을", ("Disease", "Drug"), mentions)
    return classify_spans(example, WORDS, windows, max_width)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 3), Outcome.TARGET),
        ((1, 3), Outcome.STARTS_INSIDE_WORD),
        ((0, 4), Outcome.ENDS_INSIDE_WORD),
        ((0, 9), Outcome.TOO_WIDE),
        ((3, 9), Outcome.OUTSIDE_WINDOWS),
    ],
)
def test_each_reason_has_its_name(span, expected):
    assert outcomes(Mention("Disease", "x", (span,)), windows=((0, 2), (2, 4)), max_width=2) == [[expected]]


def test_the_longest_span_of_a_label_wins_and_nesting_across_labels_stays():
    long, short, other = (
        Mention(label, "x", (span,)) for label, span in (("Disease", (0, 5)), ("Disease", (0, 3)), ("Drug", (0, 3)))
    )
    assert outcomes(long, short, other) == [[Outcome.TARGET], [Outcome.NESTED], [Outcome.TARGET]]


def test_a_span_nested_in_one_that_cannot_be_reached_is_a_target():
    wide, short = Mention("Disease", "x", ((0, 10),)), Mention("Disease", "x", ((0, 3),))
    assert outcomes(wide, short, max_width=3) == [[Outcome.TOO_WIDE], [Outcome.TARGET]]


def test_a_name_inside_a_longer_word_is_no_target(model, write_rows):
    rows, _ = load_rows(write_rows({"text": "폐암과 간염의 간 검사", "entities": {"Disease": ["암", "간"]}}))
    (row,) = split_and_align(rows, model.processor, label_schema(rows), max_width=12)
    assert row["outcomes"] == [["starts inside a word"], ["ends inside a word", "target"]]


def test_only_targets_reach_gliner2_and_lie_on_word_boundaries(model, sample_rows, schema):
    annotated = split_and_align(sample_rows, model.processor, schema, max_width=12)
    for row in training_windows(annotated, schema).select(range(50)):
        window = window_from_row(row)
        batch = model.processor.collate([window], schema)
        (instances,) = batch.structure_labels[0][0][1]
        for label, spans in zip(window.labels, instances, strict=True):
            expected = [span for span in window.targets if span.label == label]
            assert len(spans) == len(expected)
            for (first, last), span in zip(spans, expected, strict=True):
                assert (window.words[first][0], window.words[last][1]) == (span.start, span.end)


def test_long_documents_are_cut_and_every_window_points_back(model, write_rows, schema):
    text = "환자는 당뇨병으로 인슐린을 투여하였다.\n" * 40
    rows, _ = load_rows(write_rows({"text": text, "entities": {"Disease": ["당뇨병"], "Drug": ["인슐린"]}}))
    own = label_schema(rows)
    annotated = split_and_align(rows, model.processor, own, max_width=12, max_length=120, window_overlap=20)
    windows = list(aligned_windows(annotated[0], own.labels))
    assert len(windows) > 3
    for begin, window in windows:
        assert model.processor.collate([window], own).input_ids.shape[1] <= 120
        for start, end in window.words:
            assert window.text[start:end] == (text + ".")[begin + start : begin + end]
    found = {(begin + t.start, begin + t.end, t.label) for begin, window in windows for t in window.targets}
    assert found == {
        (start, end, mention.label)
        for mention in Example.from_row(annotated[0]).mentions
        for start, end in mention.spans
    }


@pytest.mark.parametrize("text", ["MRI", "환자는 MRI", "끝이 없다. ", "이미 끝났다.", "정말?"])
@pytest.mark.parametrize("splitter", ["korean", "kiwi", "char", "whitespace"])
def test_the_added_full_stop_belongs_to_no_word(pair, schema, text, splitter):
    processor = swap_encoder(*pair, schema=schema, word_splitter=splitter)[0].processor
    (words,) = processor.split([text])
    assert words[-1][1] == len(text.rstrip())  # char would make one word of `MRI.`
    batch = processor.collate([Window(text, words, schema.labels)], schema)
    added = not text.endswith((".", "?"))
    assert batch.text_word_counts == [len(words) + added]


def test_a_prompt_that_leaves_no_room_is_refused(model, sample_rows):
    schema = LabelSchema(("Disease",), {"Disease": "질병 " * 100})
    with pytest.raises(DataError, match="--max_length"):
        split_and_align(sample_rows, model.processor, schema, max_width=12, max_length=128)


def test_words_are_split_once_and_cached(model, sample_rows, schema, monkeypatch):
    split_and_align(sample_rows, model.processor, schema, max_width=11)
    monkeypatch.setattr(model.processor, "split", lambda *_: pytest.fail("split again"))
    split_and_align(sample_rows, model.processor, schema, max_width=11)


def test_report_accounts_for_every_mention_and_lists_the_lost(model, write_rows, tmp_path):
    entities = {"Disease": ["당뇨병", "뇨병", "고혈압"], "Drug": ["인슐린"]}
    rows, _ = load_rows(write_rows({"text": "당뇨병으로 인슐린을 투여", "entities": entities, "id": "a"}))
    schema = label_schema(rows)
    report = report_data(
        split_and_align(rows, model.processor, schema, max_width=12), schema, "x", tmp_path / "lost.jsonl"
    )
    assert report.mentions == sum(report.mentions_by_outcome.values()) == 4
    assert report.mentions_by_outcome["absent from text"] == 1
    assert report.mentions_by_outcome["starts inside a word"] == 1
    assert report.reach == 2 / 3
    lost = [json.loads(line) for line in (tmp_path / "lost.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(entry["mention"], entry["cause"]) for entry in lost] == [
        ("뇨병", "starts inside a word"),
        ("고혈압", "absent from text"),
    ]


@pytest.mark.slow(4)
def test_report_on_the_real_corpus_accounts_for_all_mentions(pair, real_corpus):
    rows, _ = load_rows(real_corpus)
    schema = label_schema(rows)
    reports = {}
    for splitter in ("korean", "whitespace"):
        processor = swap_encoder(*pair, word_splitter=splitter, schema=schema)[0].processor
        reports[splitter] = report_data(split_and_align(rows, processor, schema, max_width=12), schema, splitter)
        assert reports[splitter].mentions == sum(reports[splitter].mentions_by_outcome.values()) == 4454
    assert reports["korean"].reach >= 0.98
    assert 0.75 < reports["whitespace"].reach < 0.79
