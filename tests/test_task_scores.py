"""Answers to the other tasks of GLiNER2's schema, and their scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import swap_and_spread
from gliner2 import AutoExtractor
from test_one_path import assert_alike
from test_task_training import BOTH, PLAIN
from test_tasks import NEGATIVE, ROW, STATE, TEXT, read, with_structures

from glinerko import KoreanWordSplitter, load_extractor
from glinerko.common import DataError
from glinerko.corpus.reading import label_schema, require_labels
from glinerko.corpus.rows import Example, Span
from glinerko.model.answers import Found, TaskAnswers
from glinerko.model.prediction import predict_spans
from glinerko.scoring.analysis import count_errors, judge_spans
from glinerko.scoring.metrics import compare_scores, precision_recall, score_all, score_modes
from glinerko.scoring.tasks import Standing, choose_thresholds, describe_task, score_task

WINDOW = {"max_length": 512, "window_overlap": 6, "max_text": 24}
THRESHOLDS = {"상태": 0.5, "상태 변화": 0.52, "치료": 0.6, "처방": 0.7}
LONG = " ".join([TEXT, "특이 소견 없음.", TEXT.replace("인슐린", "메트포르민"), "경과를 지켜보기로 하였다.", TEXT])


@pytest.fixture
def model(request, bases, pair, write_rows):
    """A model whose scores spread, with all tasks; of the architecture of the test, or span."""
    architecture = getattr(request.node, "callspec", None) and request.node.callspec.params.get("architecture")
    schema = label_schema(read(write_rows, PLAIN if architecture == "boundary" else ROW))
    model = swap_and_spread(bases, pair, architecture or "span", schema)
    model.configure(threshold=0.8, thresholds=THRESHOLDS, window=WINDOW)
    return model


def value(text, start=None, score=0.9):
    places = {} if start is None else {"start": start, "end": start + len(text)}
    return {"text": text, "confidence": score, **places}


def pair_of(head, tail):
    return {"head": value(*head), "tail": value(*tail)}


def answers_of(model, *windows):
    """The answers to the model's own tasks, of windows that begin at some offset; what is not given was not found."""
    prompt, _ = model._prompt(None)
    nothing = {name: dict.fromkeys(task["labels"], 0.0) for name, task in prompt.classifications.items()}
    return prompt, TaskAnswers(prompt, [(begin, {**nothing, **answer}) for begin, answer in windows])


def test_probabilities_of_classes_are_averaged_over_windows(model):
    first = {"상태": {"호전": 0.9, "악화": 0.1}, "상태 변화": {"있음": 0.9, "없음": 0.6, "모름": 0.1}}
    second = {"상태": {"호전": 0.3, "악화": 0.7}, "상태 변화": {"있음": 0.3, "없음": 0.6, "모름": 0.2}}
    prompt, answers = answers_of(model, (0, first), (40, second))
    found = answers.select(prompt, THRESHOLDS)
    assert found.classes == {
        "상태": [("호전", pytest.approx(0.6))],
        "상태 변화": [("있음", pytest.approx(0.6)), ("없음", pytest.approx(0.6))],
    }
    assert answers.select(prompt, {**THRESHOLDS, "상태": 0.9, "상태 변화": 0.7}).classes["상태 변화"] == []


def test_a_relation_that_two_windows_contain_is_found_once(model):
    elsewhere = pair_of(("인슐린", 3, 0.7), ("당뇨병", 12))
    prompt, answers = answers_of(
        model,
        (0, {"치료": [pair_of(("인슐린", 30, 0.7), ("당뇨병", 40, 0.8)), elsewhere]}),
        (20, {"치료": [pair_of(("인슐린", 10, 0.9), ("당뇨병", 20, 0.95))]}),
    )
    found = answers.select(prompt).relations["치료"]
    assert found == [pair_of(("인슐린", 30, 0.9), ("당뇨병", 40, 0.95)), elsewhere]


def test_an_instance_that_one_window_holds_in_part_is_not_repeated(model):
    whole = {"약물": value("인슐린", 10), "용량": value("10mg", 14), "경로": value("경구")}
    part = {"약물": value("인슐린", 30), "용량": None, "경로": None}
    other = {"약물": value("세파클러", 2), "용량": None, "경로": value("경구")}
    prompt, answers = answers_of(model, (0, {"처방": [part, other]}), (20, {"처방": [whole, dict(whole)]}))
    found = Found(structures=answers.select(prompt).structures).values("처방")
    assert sorted(found) == [
        [("약물", "세파클러"), ("경로", "경구")],
        [("약물", "인슐린"), ("용량", "10mg"), ("경로", "경구")],
    ]
    offsets = [each["약물"]["start"] for each in answers.select(prompt).structures["처방"]]
    assert sorted(offsets) == [2, 30]


def test_what_does_not_reach_the_threshold_of_its_task_is_left_out(model):
    instances = [
        {"약물": value("인슐린", 6, 0.8), "용량": value("10mg", 10, 0.4), "경로": None},
        {"약물": value("세파클러", 25, 0.4), "용량": None, "경로": value("정맥", score=0.3)},
    ]
    pairs = [pair_of(("인슐린", 6, 0.8), ("당뇨병", 0, 0.6)), pair_of(("세파클러", 25, 0.8), ("폐렴", 20, 0.5))]
    prompt, answers = answers_of(model, (0, {"처방": instances, "치료": pairs}))
    found = answers.select(prompt)  # at 0.7 and 0.6
    assert found.values("처방") == [[("약물", "인슐린")]]
    assert found.values("치료") == [[("head", "인슐린"), ("tail", "당뇨병")]]
    lower = answers.select(prompt, dict.fromkeys(THRESHOLDS, 0.35))
    assert [len(values) for values in lower.values("처방")] == [2, 1]
    assert len(lower.values("치료")) == 2


def offsets_in(answer):
    """Every value with offsets in an answer."""
    if isinstance(answer, dict):
        own = [answer] if "start" in answer else []
        return own + [each for part in answer.values() for each in offsets_in(part)]
    return [each for part in answer for each in offsets_in(part)] if isinstance(answer, list) else []


@BOTH
def test_all_tasks_are_answered_by_default_with_offsets_into_a_long_text(model, architecture, monkeypatch):
    model.configure(threshold=0.3, thresholds=dict.fromkeys(THRESHOLDS, 0.2))
    seen, extract = [], model.extract_from_windows

    def keep(windows, prompts):
        answers = extract(windows, prompts)
        seen.extend(answer.tasks for answer in answers)
        return answers

    monkeypatch.setattr(model, "extract_from_windows", keep)
    options = {"include_spans": True, "include_confidence": True}
    answer = model.extract(LONG, **options)
    assert len(seen) > 4
    assert list(answer) == ["entities", "상태 변화", "상태", "처방", "relation_extraction"]
    places = offsets_in(answer)
    assert all(LONG[place["start"] : place["end"]] == place["text"] for place in places)
    for task in ("entities", "처방", "relation_extraction"):
        assert max((place["end"] for place in offsets_in(answer[task])), default=0) > 100, task
    means = {label: np.mean([each["상태"][label] for each in seen]) for label in STATE["labels"]}
    assert answer["상태"]["label"] == max(means, key=means.get)
    assert answer["상태"]["confidence"] == pytest.approx(max(means.values()))
    for other in (
        model.batch_extract(["두통.", LONG], **options)[1],
        model.extract_long(LONG, **options),
        next(itertools.islice(model.stream(["두통.", LONG], batch_size=2), 1, None)),
    ):
        assert_alike(other["entities"], answer["entities"])
        assert_alike(other["처방"], answer["처방"])
        assert other.keys() == answer.keys()
    plain = model.extract(LONG)
    assert plain["상태"] in STATE["labels"]
    assert all(isinstance(pair, tuple) for pair in plain["relation_extraction"]["치료"])


@BOTH
def test_an_empty_text_is_answered_too(model, architecture):
    answer = model.extract("")
    assert answer["entities"] == {"Disease": [], "Drug": []}
    assert answer["상태"] in STATE["labels"]
    assert answer["relation_extraction"] == {"치료": []}
    assert not offsets_in(model.extract("", include_spans=True))


@BOTH
def test_entities_can_be_asked_alone_and_are_the_same(model, architecture):
    options = {"include_spans": True, "include_confidence": True}
    entities = model.extract_entities(LONG, **options)
    assert entities == {"entities": model.extract(LONG, **options)["entities"]}
    assert any(entities["entities"].values())
    assert model.batch_extract_entities([LONG], **options) == [entities]
    (spans,) = model.stream_entities([LONG])
    assert len(spans) == sum(map(len, entities["entities"].values()))


def scores_in(answer, task):
    """The scores in the answer to a task: of the values, and of the instances of a boundary model."""
    instances = answer["relation_extraction"][task] if task == "치료" else answer[task]
    parts = [part for instance in instances for part in instance.values() if part]
    return sorted(part["confidence"] if isinstance(part, dict) else part for part in parts)


@BOTH
@pytest.mark.parametrize("task", ["치료", "처방"])
def test_thresholds_are_the_models_own_unless_one_is_requested(model, architecture, task):
    def found(own, **options):
        model.configure(thresholds={**THRESHOLDS, task: own})
        return scores_in(model.extract(LONG, include_confidence=True, **options), task)

    every = found(0.1)
    second = next(score for score in every if score > every[0] + 1e-4) - 1e-5
    some = found(second)
    assert every[0] < second < some[0]
    # A requested one is for every task, whatever the model's own is.
    assert found(0.1, threshold=second) == found(0.99, threshold=second) == pytest.approx(some)


@BOTH
def test_a_field_may_have_a_threshold_of_its_own(model, architecture):
    def doses(of_field, **options):
        schema = model.create_schema().structure("처방").field("약물", dtype="str")
        schema.field("용량", dtype="list", threshold=of_field)
        answers = model.extract(TEXT, schema, include_confidence=True, **options)["처방"]
        assert min((a["약물"]["confidence"] for a in answers if a["약물"]), default=1) >= options.get("threshold", 0.7)
        return [dose["confidence"] for answer in answers for dose in answer["용량"]]

    for options in ({}, {"threshold": 0.6}):
        assert min(doses(0.9, **options), default=1) >= 0.9
        assert len(doses(0.1, **options)) > len(doses(0.9, **options))


def test_a_field_with_a_dot_in_its_name_has_the_threshold_of_its_structure(bases, pair, write_rows):
    schema = label_schema(read(write_rows, with_structures({"처방": {"약.물": "인슐린", "용량": "10mg"}})))
    model = swap_and_spread(bases, pair, "span", schema)
    model.configure(thresholds={"처방": 0.2})
    prompt, _ = model._prompt(None)
    assert {field: each["threshold"] for field, each in prompt.metadata["field_metadata"].items()} == {
        "처방.약.물": 0.2,
        "처방.용량": 0.2,
    }


@BOTH
def test_the_low_threshold_of_a_relation_is_not_that_of_entities(model, architecture):
    schema = model.create_schema().entities(["Drug"]).relations({"치료": {"threshold": 0.1}})
    found = model.extract(TEXT, schema, threshold=0.95, include_confidence=True)["entities"]["Drug"]
    assert all(mention["confidence"] >= 0.95 for mention in found)


@BOTH
def test_the_high_threshold_of_a_task_is_not_that_of_others(model, architecture):
    schema = model.create_schema().structure("기타").field("약물").field("용량")
    model.configure(thresholds={})
    expected = model.extract(TEXT, schema, include_confidence=True)
    model.configure(thresholds={"상태": 0.999})
    assert model.extract(TEXT, schema, include_confidence=True) == expected


def test_a_requested_threshold_is_not_that_of_classes(model):
    assert model.extract(TEXT, threshold=0.1)["상태 변화"] == model.extract(TEXT)["상태 변화"]


@pytest.mark.parametrize(
    "schema",
    [
        {"relations": ["치료"], "structures": {"치료": {"fields": [{"name": "약물"}]}}},
        {"relations": ["치료"], "classifications": [{"task": "치료", "labels": ["가", "나"]}]},
        {"classifications": [{"task": "entities", "labels": ["가", "나"]}], "entities": ["Drug"]},
    ],
)
def test_one_name_for_two_tasks_is_refused(model, schema):
    with pytest.raises(DataError, match=r"치료|entities"):
        model.extract(TEXT, schema)


def evaluated_and_extracted(model, rows, thresholds):
    """The answers to the tasks of some documents, by evaluation and by extraction, at thresholds of the model."""
    model.configure(thresholds=thresholds)
    options = {"batch_size": 1}  # the relations of a boundary model depend on the padding
    predictions = predict_spans(model, model.split(rows), model.label_schema, **options)
    answers = model.batch_extract(rows["text"][:], include_spans=True, include_confidence=True, **options)
    return zip(predictions.found(thresholds), answers, strict=True)


@BOTH
def test_what_is_evaluated_is_what_is_extracted(model, architecture, write_rows):
    rows = read(write_rows, PLAIN, {"text": LONG, "relations": []})
    for found, answer in evaluated_and_extracted(model, rows, THRESHOLDS):
        assert_alike(answer["처방"], found.structures["처방"])
        assert answer["처방"]
        classes = [(each["label"], pytest.approx(each["confidence"])) for each in answer["상태 변화"]]
        assert found.classes == {"상태 변화": classes, "상태": [tuple(answer["상태"].values())]}


@pytest.mark.parametrize(
    "architecture",
    [
        "span",
        "boundary",
    ],
)
def test_relations_that_are_evaluated_are_those_that_are_extracted(model, architecture, write_rows):
    """gliner2's boundary decoder widens the ends of a relation to those of others above the lowest threshold."""
    rows = read(write_rows, PLAIN, {"text": LONG, "relations": []})
    for found, answer in evaluated_and_extracted(model, rows, {**THRESHOLDS, "치료": 0.45}):
        assert_alike(answer["relation_extraction"], found.relations)
        assert answer["relation_extraction"]["치료"]


@BOTH
def test_tasks_and_thresholds_are_saved_and_plain_gliner2_loads_the_model(model, architecture, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = load_extractor(tmp_path)
    assert loaded.label_schema == model.label_schema
    for ours, saved in zip(model.label_schema.tasks, loaded.label_schema.tasks, strict=True):
        assert list(ours.descriptions.items()) == list(saved.descriptions.items())  # config.json sorts its keys
        assert (ours.labels, ours.record, list(ours.choices)) == (saved.labels, saved.record, list(saved.choices))
    assert loaded.settings.thresholds == THRESHOLDS
    assert loaded.threshold == 0.8
    options = {"include_spans": True, "include_confidence": True}
    assert_alike(loaded.extract(TEXT, **options), model.extract(TEXT, **options))
    plain = AutoExtractor.from_pretrained(str(tmp_path), word_splitter=KoreanWordSplitter())
    theirs = plain.extract(
        TEXT, plain.create_schema().classification("상태", ["호전", "악화"]), include_confidence=True
    )
    schema = {"classifications": [{"task": "상태", "labels": ["호전", "악화"]}]}
    assert_alike(theirs, model.extract(TEXT, schema, include_confidence=True))


CLASSES = [
    {"text": "가", "classifications": [{**STATE, "true_label": "호전"}]},
    {"text": "나", "classifications": [{**STATE, "true_label": "악화"}]},
    {"text": "다", "classifications": [{**STATE, "true_label": "호전"}]},
    {"text": "라", "relations": []},
]


def gold_of(write_rows, *rows):
    rows = read(write_rows, *rows)
    return [Example.from_row(row) for row in rows], {task.name: task for task in label_schema(rows).tasks}


def test_one_class_a_document_is_scored_by_accuracy_and_confusion(write_rows):
    examples, tasks = gold_of(write_rows, *CLASSES)
    found = [Found(classes={"상태": [(label, 0.9)]}) for label in ("호전", "호전", "악화", "악화")]
    record = describe_task(examples, found, tasks["상태"], 0.3)
    scores = record["scores"]["class_f1"]
    assert scores["overall"]["f1"] == pytest.approx(1 / 3)
    assert [scores["labels"][label]["f1"] for label in STATE["labels"]] == [0.5, 0.0]
    assert scores["macro_f1"] == 0.25
    assert record["confusion"] == [[1, 1], [1, 0]]
    assert (record["documents"], record["threshold"]) == (3, None)  # the last document was not annotated for it


def test_several_classes_a_document_are_scored_by_f1(write_rows):
    several = [{**STATE, "multi_label": True, "true_label": true} for true in (["호전", "악화"], [], ["악화"])]
    examples, tasks = gold_of(write_rows, *({"text": "가", "classifications": [each]} for each in several))
    found = [Found(classes={"상태": [(label, 0.9) for label in labels]}) for labels in (["호전"], ["호전"], ["악화"])]
    record = describe_task(examples, found, tasks["상태"], 0.3)
    overall = record["scores"]["class_f1"]["overall"]
    assert (overall["true_positives"], overall["predicted"], overall["gold"]) == (2, 3, 3)
    assert record["threshold"] == 0.3
    assert "confusion" not in record


def test_a_relation_is_right_if_its_type_and_both_ends_are(write_rows):
    pairs = [("세파클러", "폐렴"), ("간 이식", "두통")]
    relations = [{"치료": dict(zip(("head", "tail"), pair, strict=True))} for pair in pairs]
    relations += [relations[0], {"유발": {"head": "인슐린", "tail": "두통"}}]
    text = "세파클러 폐렴 간이식 두통 인슐린"
    rows = {"text": text, "relations": relations}, {"text": "두통", "relations": []}, {"text": text, "entities": {}}
    examples, tasks = gold_of(write_rows, *rows)
    assert tasks.keys() == {"치료", "유발"}
    # Right once, found twice; right, as the text has it; turned round.
    given = [("세파클러", "폐렴"), ("세파클러", "폐렴"), ("간이식", "두통"), ("폐렴", "세파클러")]
    first = Found(
        relations={"치료": [pair_of((a, 0), (b, 0)) for a, b in given], "유발": [pair_of(("인슐린", 0), ("폐렴", 0))]}
    )
    second = Found(relations={"치료": [pair_of(("두통", 0), ("두통", 0))], "유발": []})
    found = [first, second, second]
    record = describe_task(examples, found, tasks["치료"], 0.4)
    overall = record["scores"]["relation_f1"]["overall"]
    assert (overall["true_positives"], overall["predicted"], overall["gold"]) == (2, 4, 2)
    assert (record["invented"], record["documents"]) == ((1, 1), 2)
    other = score_task(examples, found, tasks["유발"])["relation_f1"]
    assert (other.overall.true_positives, other.overall.predicted, other.overall.gold) == (0, 1, 1)


def test_structures_are_scored_by_field_by_instance_and_by_their_number(write_rows):
    choice = {"value": "경구", "choices": ["경구", "정맥"]}
    gold = [{"약물": "인슐린", "용량": "10mg", "경로": choice}, {"약물": "세파클러"}, {"약물": "세파클러"}]
    rows = [with_structures(*({"처방": each} for each in gold)), with_structures(), with_structures({"처방": gold[0]})]
    examples, tasks = gold_of(write_rows, *rows, NEGATIVE, {"text": TEXT, "entities": {}})

    def instance(**values):
        return {"약물": None, "용량": None, "경로": None, **{name: value(text) for name, text in values.items()}}

    given = [
        # The values of two instances mixed up, and one of the two equal ones.
        [instance(약물="인슐린", 용량="5mg", 경로="경구"), instance(약물="세파클러")],
        [instance(약물="세파클러")],
        [instance(약물="인슐린", 용량="10mg", 경로="경구")],
        [],
        [instance(약물="폐렴")],
    ]
    found = [Found(structures={"처방": instances}) for instances in given]
    record = describe_task(examples, found, tasks["처방"], 0.4)
    fields, instances, counts = (record["scores"][name] for name in ("field_f1", "instance_f1", "count_accuracy"))

    def figures(score):
        return score["true_positives"], score["predicted"], score["gold"]

    assert figures(fields["overall"]) == (6, 8, 7)
    assert {name: figures(score) for name, score in fields["labels"].items()} == {
        "처방.약물": (3, 4, 3),
        "처방.용량": (1, 2, 2),
        "처방.경로": (2, 2, 2),
    }
    assert figures(instances["overall"]) == (2, 4, 4)
    assert counts["overall"]["f1"] == pytest.approx(2 / 4)
    assert record["invented"] == (1, 2)
    assert record["documents"] == 4


def test_scores_are_counted_by_document_so_that_there_are_intervals_and_tests(write_rows):
    examples, tasks = gold_of(write_rows, *CLASSES[:2] * 20, *[ROW] * 4)
    nothing = {"relations": {"치료": []}, "structures": {"처방": []}}
    found = [Found({"상태": [("호전", 0.9)], "상태 변화": []}, **nothing) for _ in examples]
    for name, task in tasks.items():
        documents = {"상태": 44, "상태 변화": 4, "치료": 4, "처방": 4}[name]
        for scores in score_task(examples, found, task).values():
            assert scores.counts.shape[0] == documents
            assert scores.counts.sum() == sum(
                each.true_positives + each.predicted + each.gold for each in scores.labels.values()
            )
    (accuracy,) = score_task(examples, found, tasks["상태"]).values()
    low, high = accuracy.to_dict()["overall"]["f1_interval"]
    assert low < accuracy.overall.f1 == 24 / 44 < high
    perfect = [Found({"상태": [(each.classes["상태"][0], 1.0)]}) for each in examples]
    (best,) = score_task(examples, perfect, tasks["상태"]).values()
    first, second = compare_scores([("a", 0.5, best), ("b", 0.5, accuracy)])
    assert (first["f1"], second["difference"]["f1"]) == (1.0, pytest.approx(20 / 44))
    assert second["difference"]["p_value"] < 0.01


def test_thresholds_are_those_that_the_validation_documents_want(write_rows):
    """A wrong relation below 0.7, and no right value of a structure above 0.3."""
    row = {"text": TEXT, "relations": ROW["relations"], "json_structures": [{"처방": {"약물": "인슐린"}}]}
    examples, tasks = gold_of(write_rows, *[row] * 30, *CLASSES[:1] * 3)
    right = [pair_of(("세파클러", 25), ("폐렴", 20)), pair_of(("인슐린", 6), ("당뇨병", 0))]
    asked = []

    def find(thresholds):
        asked.append(thresholds)
        wrong = [pair_of(("인슐린", 6), ("폐렴", 20))] if thresholds["치료"] < 0.7 else []
        instances = [{"약물": value("인슐린", 6)}] if thresholds["처방"] <= 0.3 else []
        each = Found({"상태": [("악화", 0.5)]}, {"치료": right + wrong}, {"처방": instances})
        return [each] * len(examples)

    assert choose_thresholds(examples, find, list(tasks.values())) == {"상태": 0.5, "치료": 0.7, "처방": 0.3}
    assert len(asked) == 19
    assert choose_thresholds(examples, find, []) == {}


def test_the_best_epoch_is_the_best_in_all_tasks_and_is_read_again(write_rows):
    rows = read(write_rows, *CLASSES, {"text": TEXT, "entities": {"Drug": ["인슐린"]}})
    schema, examples = label_schema(rows), [Example.from_row(row) for row in rows]
    task = schema.tasks[0]
    found = [Found(classes={"상태": [("호전", 0.9)]}) for _ in examples]
    accuracy = score_task(examples, found, task)["class_f1"]
    entities = score_all(examples, [[]] * 4 + [[Span(6, 9, "Drug", 0.9)]], schema.labels)["string_f1"]
    standing = Standing(0.4, entities, {"상태": (0.5, accuracy)})
    assert standing.value == pytest.approx((1 + 2 / 3) / 2)
    assert Standing.from_dict(standing.to_dict(), schema) == standing
    assert Standing(0.5, tasks={"상태": (0.5, accuracy)}).value == pytest.approx(2 / 3)


def test_documents_that_were_not_annotated_for_entities_are_not_scored_for_them(write_rows):
    rows = read(
        write_rows, {"text": TEXT, "classifications": [STATE]}, {"text": TEXT, "entities": {"Drug": ["인슐린"]}}
    )
    examples, spans = [Example.from_row(row) for row in rows], [[Span(0, 3, "Drug", 0.9)], [Span(6, 9, "Drug", 0.8)]]
    for scores in score_all(examples, spans, ["Drug"]).values():
        assert (scores.overall.predicted, scores.overall.f1) == (1, 1.0)
        assert len(scores.counts) == 2
    assert {mode["f1"] for mode in score_modes(examples, spans, ["Drug"]).values()} == {1.0}
    assert precision_recall(examples, spans, ["Drug"])[1] == 1.0
    judged = judge_spans(examples, [{}, {(6, 9, "Drug"): "target"}], spans, ["Drug"])
    assert count_errors(judged)["predicted"]["all"] == {"correct": 1}


def test_documents_with_several_classes_are_refused_where_the_model_gives_one(write_rows):
    trained = label_schema(read(write_rows, CLASSES[0]))
    rows = read(write_rows, {"text": "가", "classifications": [{**STATE, "multi_label": True, "true_label": []}]})
    with pytest.raises(DataError, match="상태"):
        require_labels(rows, trained, "x")
