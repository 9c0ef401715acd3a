"""The other tasks of GLiNER2's schema in a corpus: rows, the schema they make, and what of it a window can teach."""

from __future__ import annotations

import json
import re

import pytest
from conftest import split_and_align, swap_and_spread

from glinerko.common import DataError, read_json_lines
from glinerko.corpus import reading
from glinerko.corpus.alignment import Outcome, place_records
from glinerko.corpus.parsing import parse_row
from glinerko.corpus.reading import label_schema, load_rows, require_labels
from glinerko.corpus.report import report_data
from glinerko.corpus.rows import Example, make_row
from glinerko.corpus.schema import Task
from glinerko.corpus.splits import contradicting_texts
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.sharing.tables import data_table, plain_rows

TEXT = "당뇨병으로 인슐린 10mg을 먹이고 폐렴으로 세파클러 5mg을 정맥에 놓아 호전되었다."
STATE = {"task": "상태", "labels": ["호전", "악화"], "true_label": "호전"}
CHANGE = {
    "task": "상태 변화",
    "labels": {"있음": "달라졌다", "없음": "그대로다", "모름": ""},
    "true_label": ["있음"],
    "multi_label": True,
    "prompt": "지난번과 견주어",
    "examples": [["그대로다.", "없음"]],
}
RELATIONS = [{"치료": {"head": "세파클러", "tail": "폐렴"}}, {"치료": {"head": "인슐린", "tail": "당뇨병"}}]
CHOICES = ["경구", "정맥"]
STRUCTURES = [
    {"처방": {"약물": "세파클러", "용량": "5mg", "경로": {"value": "정맥", "choices": CHOICES}}},
    {"처방": {"약물": {"text": "인슐린", "start": 6, "end": 9}, "경로": {"value": "경구", "choices": CHOICES}}},
]
TASKS = {
    "classifications": [STATE, CHANGE],
    "relations": RELATIONS,
    "relation_descriptions": {"치료": "약이 병을 낫게 한다"},
    "json_structures": STRUCTURES,
    "json_descriptions": {"처방": {"약물": "처방한 약", "용량": "한 번에 쓰는 양"}},
}
ROW = {"text": TEXT, "entities": {"Disease": ["당뇨병", "폐렴"], "Drug": ["인슐린", "세파클러"]}, **TASKS}
"""A document with all tasks; instances stand in another order than in the text."""
NEGATIVE = {
    "text": "특이 소견 없음.",
    "entities": {},
    "classifications": [{**STATE, "true_label": ["악화"]}, {**CHANGE, "true_label": []}],
    "relations": [],
    "json_structures": [],
}
"""A document in which nothing was found."""
CAUSES = [outcome.value for outcome in Outcome]


def read(write_rows, *rows):
    return load_rows(write_rows(*rows))[0]


def tasks_of(row) -> dict[str, Task]:
    """What a stored row says of the tasks."""
    return {task["name"]: Task.from_dict(task) for task in json.loads(row["tasks"])}


def with_structures(*instances, **others):
    return {"text": TEXT, "json_structures": list(instances), **others}


@pytest.mark.parametrize("spelling", [("input", "output"), ("text", "schema"), ("text", None)])
def test_both_spellings_of_gliner2_and_the_flat_form_say_the_same(write_rows, spelling):
    text, body = spelling
    content = {name: value for name, value in ROW.items() if name != "text"}
    (row,) = read(write_rows, {text: TEXT, **({body: content} if body else content)})
    assert row["annotated"] == ["entities", "classifications", "relations", "structures"]
    assert not row["unused"]
    example = Example.from_row(row)
    assert example.classes == {"상태": ("호전",), "상태 변화": ("있음",)}
    found = [(r.kind, r.task, [(v.label, v.text, v.spans) for v in r.values], r.chosen) for r in example.records]
    assert found == [
        ("relations", "치료", [("head", "세파클러", ((25, 29),)), ("tail", "폐렴", ((20, 22),))], ()),
        ("relations", "치료", [("head", "인슐린", ((6, 9),)), ("tail", "당뇨병", ((0, 3),))], ()),
        (
            "structures",
            "처방",
            [("약물", "세파클러", ((25, 29),)), ("용량", "5mg", ((30, 33),)), ("경로", "정맥", ())],
            ("경로",),
        ),
        ("structures", "처방", [("약물", "인슐린", ((6, 9),)), ("경로", "경구", ())], ("경로",)),
    ]
    assert tasks_of(row) == {
        "상태": Task("classifications", "상태", ("호전", "악화")),
        "상태 변화": Task(
            "classifications",
            "상태 변화",
            ("있음", "없음", "모름"),
            {"있음": "달라졌다", "없음": "그대로다"},
            "지난번과 견주어",
            multi_label=True,
            examples=(("그대로다.", "없음"),),
        ),
        "치료": Task("relations", "치료", ("head", "tail"), prompt="약이 병을 낫게 한다"),
        "처방": Task(
            "structures",
            "처방",
            ("약물", "용량", "경로"),
            {"약물": "처방한 약", "용량": "한 번에 쓰는 양"},
            choices={"경로": ("경구", "정맥")},
        ),
    }


def test_a_field_may_have_several_values_and_choices(write_rows):
    several = {"약물": ["인슐린", {"text": "세파클러", "start": 25, "end": 29}], "용량": ["5mg"]}
    several["경로"] = {"value": ["정맥", "경구"], "choices": CHOICES}
    (row,) = read(write_rows, with_structures({"처방": several}))
    (record,) = Example.from_row(row).records
    assert [(value.label, value.text) for value in record.values] == [
        ("약물", "인슐린"),
        ("약물", "세파클러"),
        ("용량", "5mg"),
        ("경로", "정맥"),
        ("경로", "경구"),
    ]
    assert tasks_of(row)["처방"].lists == ("약물", "경로")


@pytest.mark.parametrize(
    ("body", "annotated"),
    [
        ({"entities": {}}, ["entities"]),
        ({"entities": {}, "relations": []}, ["entities", "relations"]),
        ({"relations": [], "classifications": None}, ["relations"]),
        ({"json_structures": [], "classifications": []}, ["classifications", "structures"]),
        ({"classifications": [STATE], "entity_descriptions": {"Drug": "약"}}, ["classifications"]),
    ],
)
def test_a_row_was_annotated_for_the_keys_that_it_has(write_rows, body, annotated):
    (row,) = read(write_rows, {"text": TEXT, **body})
    assert row["annotated"] == annotated
    assert not row["labels"]
    assert not row["records"]


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        NEGATIVE,
        {"text": TEXT, "relations": [], "relation_descriptions": {"치료": "낫게 한다", "유발": "일으킨다"}},
        {
            "text": TEXT,
            "relations": [{"치료": {"head": "", "tail": ""}}, {"유발": {"head": "없는 약", "tail": "폐렴"}}],
        },
        with_structures(json_descriptions={"처방": {"약물": "약", "용량": "양"}}),
        with_structures({"처방": {"약물": ""}}, {"처방": {"약물": ["인슐린", "세파클러"]}}),
        with_structures({"처방": {"경로": {"value": ["경구", "정맥"], "choices": CHOICES}}}),
        with_structures({"처방": {"약물": "인슐린"}}, record_metadata={"처방": {"mode": "natural", "anchor": "약물"}}),
        # The second of two occurrences, one with other white space, and one that the text has in another form.
        {"id": 7, "text": "약 약", "json_structures": [{"가": {"나": {"text": "약", "start": 2, "end": 3}}}]},
        {"text": "간 이식을 함", "json_structures": [{"가": {"나": "간이식"}, "다": {"나": "간"}}]},
    ],
)
def test_written_rows_are_read_again_as_the_same(write_rows, tmp_path, row):
    rows = read(write_rows, row)
    reading.write_rows(rows, tmp_path / "again.jsonl")
    (again,), (first,) = load_rows(str(tmp_path / "again.jsonl"))[0], rows
    assert Example.from_row(again) == Example.from_row(first)
    assert tasks_of(again) == tasks_of(first)


BAD_ROWS = {
    "'classifications' must be a list": {"classifications": {"상태": "호전"}},
    "'상태': the true label '유지' is none of its labels": {"classifications": [{**STATE, "true_label": "유지"}]},
    "'상태' has 2 true labels": {"classifications": [{**STATE, "true_label": ["호전", "악화"]}]},
    "'상태' has 0 true labels": {"classifications": [{**STATE, "true_label": []}]},
    "'상태' has no 'true_label'": {"classifications": [{"task": "상태", "labels": ["호전", "악화"]}]},
    "'상태' needs a list of at least two 'labels'": {"classifications": [{**STATE, "labels": ["호전"]}]},
    "the label '호전' is given twice": {"classifications": [{**STATE, "labels": ["호전", "호전"]}]},
    "the classification '상태' is given twice": {"classifications": [STATE, STATE]},
    "a label must be a string, found nothing": {"classifications": [{**STATE, "task": None}]},
    "the task 'entities' is a name of gliner2's own": {"classifications": [{**STATE, "task": "entities"}]},
    "the task 'relation_extraction' is a name of": with_structures({"relation_extraction": {"약물": "인슐린"}}),
    "the task '치료' is both relations and structures": with_structures({"치료": {"가": "폐렴"}}, relations=RELATIONS),
    "the task '상태' is both": {"classifications": [STATE], "relations": [{"상태": {"head": "", "tail": ""}}]},
    "an example must be": {"classifications": [{**STATE, "examples": [["그대로다."]]}]},
    "'prompt' must be a string": {"classifications": [{**STATE, "prompt": 3}]},
    "the description of '호전' must be a string, found a number": {
        "classifications": [{**STATE, "label_descriptions": {"호전": 3}}]
    },
    "the description of '상태' holds half of a surrogate": {"classifications": [{**STATE, "prompt": "\udc00"}]},
    "a label holds half of a surrogate pair": {"classifications": [{**STATE, "task": "\ud800"}]},
    r"relation 1 \(치료\) must have 'head' and 'tail', found head": {"relations": [{"치료": {"head": "인슐린"}}]},
    "found head, tail, 강도": {"relations": [{"치료": {"head": "인슐린", "tail": "당뇨병", "강도": "5"}}]},
    r"relation 1 \(치료\) has no tail": {"relations": [{"치료": {"head": "인슐린", "tail": ""}}]},
    "the tail of relation 1 .* found a list": {"relations": [{"치료": {"head": "인슐린", "tail": ["당뇨병", "폐렴"]}}]},
    "'치료' in 'relations' must be an object with values": {"relations": [{"치료": ["인슐린", "당뇨병"]}]},
    "the description of '치료' must be": {"relations": [], "relation_descriptions": {"치료": 3}},
    r"'경로' of structure 1 \(처방\): '피하' is none of its choices": with_structures(
        {"처방": {"경로": {"value": "피하", "choices": CHOICES}}}
    ),
    r"'약물' of structure 1 \(처방\): the text at offsets \[0, 3\) is not the mention": with_structures(
        {"처방": {"약물": {"text": "인슐린", "start": 0, "end": 3}}}
    ),
    r"'약물' of structure 2 \(처방\) must be a string": with_structures(STRUCTURES[0], {"처방": {"약물": 3}}),
    r"'약물' of structure 1 \(처방\) holds half of a surrogate": with_structures({"처방": {"약물": "\ud800"}}),
    "a label is empty": with_structures({"처방": {"": "인슐린"}}),
    "'처방' in 'json_structures' must be": with_structures({"처방": "인슐린"}),
    "the description of '약물' must be a string": with_structures(json_descriptions={"처방": {"약물": ["약"]}}),
    "'record_metadata' of '처방' must be an object": with_structures(
        STRUCTURES[0], record_metadata={"처방": "natural"}
    ),
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_bad_row_is_one_line_with_its_number_and_the_reason(write_rows, reason):
    path = write_rows(ROW, json.dumps({"text": TEXT, **BAD_ROWS[reason]}))
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: .*{reason}") as raised:
        load_rows(path)
    assert len(str(raised.value).splitlines()) == 1
    assert "되었다" not in str(raised.value)
    rows, skipped = load_rows(path, on_bad_row="skip")
    assert (len(rows), skipped) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [{"label_descriptions": {"호저": "나아졌다"}}, {"examples": [["나았다.", "호저"]]}, {"multi_label": "false"}],
)
def test_what_cannot_be_meant_of_a_class_is_a_bad_row(write_rows, changes):
    with pytest.raises(DataError, match="line 1"):
        load_rows(write_rows({"text": TEXT, "classifications": [{**STATE, **changes}]}))


def test_the_schema_of_a_corpus_merges_what_its_rows_say(write_rows):
    first = {
        "text": TEXT,
        "classifications": [{**STATE, "labels": ["유지", "호전"]}],
        "relations": [{"유발": {"head": "인슐린", "tail": "폐렴"}}],
        "json_structures": [
            {"처방": {"경로": {"value": "피하", "choices": ["피하", "경구"]}, "약물": ["인슐린", "폐렴"]}}
        ],
    }
    second = {**ROW, "classifications": [{**STATE, "multi_label": True, "label_descriptions": {"악화": "나빠짐"}}]}
    for rows, labels, choices in (
        ([first, second], ("유지", "호전", "악화"), ("피하", "경구", "정맥")),
        ([second, first], ("호전", "악화", "유지"), ("경구", "정맥", "피하")),
    ):
        tasks = {task.name: task for task in label_schema(read(write_rows, *rows)).tasks}
        assert (tasks["상태"].labels, tasks["상태"].multi_label) == (labels, True)
        assert tasks["상태"].descriptions == {"악화": "나빠짐"}
        assert {name for name, task in tasks.items() if task.kind == "relations"} == {"유발", "치료"}
        assert (tasks["치료"].prompt, tasks["유발"].prompt) == ("약이 병을 낫게 한다", "")
        assert (tasks["처방"].choices, tasks["처방"].lists) == ({"경로": choices}, ("약물",))
        assert set(tasks["처방"].labels) == {"약물", "용량", "경로"}


def test_fields_with_a_description_come_first(write_rows):
    row = with_structures(
        {"처방": {"용량": "5mg", "약물": "인슐린"}}, json_descriptions={"처방": {"약물": "약", "빈도": "번"}}
    )
    (task,) = label_schema(read(write_rows, row)).tasks
    assert task.labels == ("약물", "빈도", "용량")


def test_a_name_that_two_rows_use_for_two_kinds_is_refused(write_rows):
    rows = read(write_rows, {"text": TEXT, "relations": RELATIONS}, with_structures({"치료": {"약물": "인슐린"}}))
    with pytest.raises(DataError, match="'치료' is both relations and structures"):
        label_schema(rows)


@pytest.mark.parametrize(
    ("instances", "others", "record"),
    [
        (({"용량": "5mg", "약물": "인슐린"}, {"약물": "세파클러"}), {}, {"mode": "natural", "anchor": "약물"}),
        (
            ({"용량": "5mg", "약물": "인슐린"}, {"약물": "세파클러", "용량": "10mg"}),
            {},
            {"mode": "natural", "anchor": "용량"},
        ),
        (({"용량": "5mg"}, {"약물": "세파클러"}), {}, {"mode": "latent"}),
        # What is chosen stands nowhere in the text.
        (({"경로": {"value": "경구", "choices": CHOICES}},), {}, {"mode": "latent"}),
        (
            ({"용량": "5mg", "약물": "인슐린"},),
            {"record_metadata": {"처방": {"mode": "natural", "anchor": "약물"}}},
            {"mode": "natural", "anchor": "약물"},
        ),
    ],
)
def test_the_anchor_of_a_structure_is_the_first_field_that_all_instances_have(write_rows, instances, others, record):
    rows = [with_structures({"처방": instance}, **others) for instance in instances]
    (task,) = label_schema(read(write_rows, *rows, NEGATIVE)).of_kind("structures")
    assert task.record == record


def test_classes_and_fields_that_were_not_trained_are_named(write_rows):
    trained = label_schema(read(write_rows, ROW))
    require_labels(read(write_rows, NEGATIVE), trained, "x")
    unknown = (
        {"classifications": [{**STATE, "labels": ["호전", "유지"]}]},
        {"json_structures": [{"처방": {"빈도": "5mg"}}]},
    )
    for body, name in zip(unknown, ("유지", "빈도"), strict=True):
        with pytest.raises(DataError, match=f"x: .* has {name}, which is not asked for"):
            require_labels(read(write_rows, {"text": TEXT, **body}), trained, "x")


@pytest.mark.parametrize("together", [True, False])
def test_a_field_is_chosen_everywhere_or_nowhere(write_rows, together):
    instances = STRUCTURES[0], {"처방": {"약물": "인슐린", "경로": "정맥"}}
    with pytest.raises(DataError, match="경로"):
        label_schema(
            read(write_rows, *([with_structures(*instances)] if together else map(with_structures, instances)))
        )


@pytest.mark.parametrize("record", [{"mode": "natural", "anchor": "경로"}, {"mode": "simple"}, {"anchors": "약물"}])
def test_a_way_to_form_instances_that_gliner2_does_not_know_is_one_line(write_rows, record):
    with pytest.raises(DataError, match="처방"):
        label_schema(read(write_rows, with_structures({"처방": {"약물": "인슐린"}}, record_metadata={"처방": record})))


def test_a_structure_and_its_declaration_make_the_request_of_gliner2(write_rows):
    request = label_schema(read(write_rows, ROW, NEGATIVE)).to_request()
    assert [task["task"] for task in request["classifications"]] == ["상태 변화", "상태"]  # the longer name first
    fields = request["structures"]["처방"]["fields"]
    assert [(f["name"], f["dtype"], f["choices"], f["cardinality"]) for f in fields] == [
        ("약물", "str", None, None),
        ("용량", "str", None, "optional_one"),
        ("경로", "str", ["경구", "정맥"], "optional_one"),
    ]
    assert (request["structures"]["처방"]["mode"], request["structures"]["처방"]["anchor"]) == ("natural", "약물")


SIX = "인슐린 10mg 당뇨병 세파클러 5mg 폐렴"


def place(windows, relations=(), structures=(), text=SIX, max_width=12, max_records=None):
    """The outcomes of the values of each record, and the records that windows of white-space words are to find."""
    body = {"relations": [{"치료": dict(zip(("head", "tail"), pair, strict=True))} for pair in relations]}
    body["json_structures"] = [{"처방": structure} for structure in structures]
    example = Example.from_row(make_row(**parse_row({"text": text, **body}, "a")))
    words = [match.span() for match in re.finditer(r"\S+", text)]
    outcomes, targets = place_records(example, words, windows, max_width, max_records)
    found = [
        (t["window"], [text[s:e] for v in t["values"] for s, e in v["spans"]] + [v["text"] for v in t["chosen"]])
        for t in targets
    ]
    return outcomes, found


def test_a_relation_is_a_target_of_every_window_that_has_both_ends():
    pair = [("당뇨병", "세파클러")]
    assert place([(0, 6)], pair) == ([[Outcome.TARGET] * 2], [(0, ["당뇨병", "세파클러"])])
    both = [(0, ["당뇨병", "세파클러"]), (1, ["당뇨병", "세파클러"])]
    assert place([(0, 4), (2, 6)], pair) == ([[Outcome.TARGET] * 2], both)
    assert place([(0, 3), (3, 6)], pair) == ([[Outcome.APART] * 2], [])
    assert place([(0, 6)], [("당뇨병", "당뇨")]) == ([[Outcome.APART, Outcome.ENDS_INSIDE_WORD]], [])


def test_an_end_that_occurs_twice_counts_where_the_other_end_is():
    text = "인슐린 10mg 인슐린 당뇨병"
    assert place([(0, 2), (2, 4)], [("인슐린", "당뇨병")], text=text) == (
        [[Outcome.TARGET] * 2],
        [(1, ["인슐린", "당뇨병"])],
    )


def test_a_structure_is_learned_where_most_of_it_is():
    structure = [{"약물": "인슐린", "용량": "10mg", "병": "폐렴"}]
    outcomes = [[Outcome.TARGET, Outcome.TARGET, Outcome.APART]]
    assert place([(0, 3), (3, 6)], structures=structure) == (outcomes, [(0, ["인슐린", "10mg"])])
    # A window with all of it is better, and no other is needed.
    whole = [[Outcome.TARGET] * 3]
    assert place([(0, 3), (0, 6)], structures=structure) == (whole, [(1, ["인슐린", "10mg", "폐렴"])])


def test_values_that_cannot_be_found_have_their_cause_and_leave_the_rest():
    structure = {"약물": "인슐린", "부분": "mg", "끝": "세파", "넓음": "당뇨병 세파클러 5mg", "없음": "아스피린"}
    structure["경로"] = {"value": "경구", "choices": CHOICES}
    outcomes, targets = place([(0, 6)], structures=[structure], max_width=2)
    causes = [Outcome.STARTS_INSIDE_WORD, Outcome.ENDS_INSIDE_WORD, Outcome.TOO_WIDE, Outcome.ABSENT]
    assert outcomes == [[Outcome.TARGET, *causes, Outcome.TARGET]]
    assert targets == [(0, ["인슐린", "경구"])]
    assert place([(0, 6)], structures=[{"부분": "mg"}]) == ([[Outcome.STARTS_INSIDE_WORD]], [])


def test_what_is_only_chosen_is_a_target_of_the_first_window():
    chosen = [{"경로": {"value": "경구", "choices": CHOICES}}]
    assert place([(0, 3), (3, 6)], structures=chosen) == ([[Outcome.TARGET]], [(0, ["경구"])])


def test_instances_of_a_window_are_in_the_order_of_the_text():
    structures = [{"용량": "5mg", "약물": "세파클러"}, {"병": "폐렴"}, {"용량": "10mg", "약물": "인슐린"}]
    _, targets = place([(0, 6)], structures=structures)
    assert [values[0] for _, values in targets] == ["10mg", "5mg", "폐렴"]
    _, targets = place([(0, 6)], [("세파클러", "폐렴"), ("인슐린", "당뇨병")])
    assert [values[0] for _, values in targets] == ["인슐린", "세파클러"]


@pytest.mark.parametrize("architecture", ["span", "boundary"])
def test_instances_past_those_that_the_count_head_knows_are_counted(write_rows, bases, pair, architecture):
    names = [f"약{number}" for number in range(21)]
    row = {"text": " , ".join(names), "json_structures": [{"처방": {"약물": name}} for name in names[::-1]]}
    rows = read(write_rows, row)
    schema = label_schema(rows)
    aligned = swap_and_spread(bases, pair, architecture, schema).align(rows)
    (window,) = map(window_from_row, training_windows(aligned, schema))
    found = [window.text[start:end] for record in window.records for _, ((start, end),) in record.values]
    lost = 2 if architecture == "span" else 0  # the count head of gliner2 ends at 19
    assert found == names[: 21 - lost]
    counts = report_data(aligned, schema, "").tasks["처방"].counts
    expected = {"instances": 21, "약물: of a record too many for its window": lost, "약물: target": 21 - lost}
    assert counts == {name: count for name, count in expected.items() if count}


def test_every_class_and_value_is_accounted_for(write_rows, model, tmp_path):
    lost = {
        "id": "lost",
        "text": TEXT,
        "relations": [{"치료": {"head": "세파클러", "tail": "당뇨병"}}, {"치료": {"head": "세파클러", "tail": "폐렴"}}],
        "json_structures": [
            {"처방": {"약물": "슐린", "용량": "10mg을 먹이고", "경로": {"value": "경구", "choices": CHOICES}}}
        ],
    }
    rows = read(write_rows, ROW, NEGATIVE, lost, {"text": "두통", "entities": {"Drug": ["아스피린"]}})
    schema = label_schema(rows)
    aligned = split_and_align(rows, model.processor, schema, max_width=3, max_text=14, window_overlap=2)
    assert [len(row["windows"]) > 1 for row in aligned] == [True, False, True, False]
    report = report_data(aligned, schema, "", tmp_path / "unreached.jsonl")
    assert not report.unused_keys
    assert report.tasks["상태"].counts == {"호전": 1, "악화": 1}
    assert report.tasks["상태 변화"].counts == {"있음": 1}
    assert {name: task.documents for name, task in report.tasks.items()} == {
        "상태": 2, "상태 변화": 2, "치료": 3, "처방": 3
    }  # fmt: skip
    assert report.tasks["치료"].counts["documents with none"] == report.tasks["처방"].counts["documents with none"] == 1
    assert report.tasks["치료"].counts["relations"] == 4
    assert report.tasks["처방"].counts["instances"] == 3
    values = {f"{r.task}.{v.label}": 0 for row in rows for r in Example.from_row(row).records for v in r.values}
    for record in (record for row in rows for record in Example.from_row(row).records):
        for value in record.values:
            values[f"{record.task}.{value.label}"] += 1
    unreached = read_json_lines(tmp_path / "unreached.jsonl")
    for place, number in values.items():
        name, _, field = place.partition(".")
        counts = {cause: report.tasks[name].counts.get(f"{field}: {cause}", 0) for cause in CAUSES}
        assert sum(counts.values()) == number
        listed = [entry["cause"] for entry in unreached if entry["label"] == place]
        assert sorted(listed) == sorted(cause for cause in CAUSES[:-1] for _ in range(counts[cause]))
    assert {(entry["id"], entry["label"], entry["mention"]) for entry in unreached} >= {
        ("lost", "처방.약물", "슐린"),
        ("lost", "처방.용량", "10mg을 먹이고"),
        ("lost", "치료.head", "세파클러"),
        ("rows:4", "Drug", "아스피린"),
    }
    shown = plain_rows(data_table({"training": report}))
    assert ("처방: documents annotated for it", "3") in shown
    assert ("  documents with none", "1") in shown


def test_a_row_that_is_not_annotated_for_entities_contradicts_nothing(write_rows):
    entities = {"text": TEXT, "entities": {"Drug": ["인슐린"]}}
    assert contradicting_texts(read(write_rows, entities, {"text": TEXT, "entities": {}}))
    assert not contradicting_texts(read(write_rows, entities, {"text": TEXT, "classifications": [STATE]}))
