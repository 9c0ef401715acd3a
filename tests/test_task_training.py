"""Training for the other tasks of GLiNER2's schema: what gliner2 gets wrong in silence, each with what is right here."""

from __future__ import annotations

import random

import pytest
import torch
from accelerate import Accelerator
from conftest import swap_and_spread
from test_tasks import CHOICES, NEGATIVE, RELATIONS, ROW, STATE, STRUCTURES, TEXT, read, with_structures

from glinerko.corpus.processor import Window
from glinerko.corpus.reading import label_schema
from glinerko.corpus.rows import Example
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.model.extractor import load_and_compare
from glinerko.model.prediction import own_prompt, predict_spans
from glinerko.model.spans import COUNT_WEIGHT
from glinerko.model.swap import swap_encoder
from glinerko.scoring.tasks import choose_thresholds, invented, score_task
from glinerko.training.batches import WindowCollator, find_batch_size
from glinerko.training.optimizer import check_step, freeze_unused, parameter_groups

BOTH = pytest.mark.parametrize("architecture", ["span", "boundary"])
EVERYTHING = ("entities", "classifications", "relation", "json")
"""The beginnings of the keys of the tasks."""
PLAIN = {
    **ROW,
    "json_structures": [{"처방": {"약물": "인슐린", "용량": "10mg"}}, {"처방": {"약물": "세파클러", "용량": "5mg"}}],
}
"""The document without a field that is chosen."""


@pytest.fixture
def build(bases, pair, write_rows):
    """A swapped model, the schema of some rows, and their training windows."""

    def build(architecture, *rows):
        rows = read(write_rows, *rows)
        schema = label_schema(rows)
        model = swap_and_spread(bases, pair, architecture, schema)
        return model, schema, training_windows(model.align(rows), schema)

    return build


def batch_of(model, schema, windows, **options):
    return model.processor.collate(list(map(window_from_row, windows)), schema, **options)


def tasks_in(batch, index):
    """The tokens and the gold of each task in a prompt, by the kind."""
    found = {}
    rows = zip(batch.task_types[index], batch.schema_tokens_list[index], batch.structure_labels[index], strict=True)
    for kind, tokens, gold in rows:
        found.setdefault(kind, []).append((tokens, gold))
    return found


def before_the_text(batch, index):
    """The words that stand before the text: the choices of fields."""
    return batch.text_tokens[index][: batch.text_word_counts[index] - len(batch.start_mappings[index])]


@BOTH
def test_training_and_reading_have_the_same_prompt_piece_by_piece(build, architecture):
    model, schema, windows = build(architecture, ROW, NEGATIVE)
    training = batch_of(model, schema, windows)
    plain = [Window(row["text"], row["words"], ()) for row in windows]
    for prompt in (own_prompt(model, schema, 0.05), model._prompt(None)[0]):
        reading = model.processor.collate_schemas(plain, [prompt.schema] * 2)
        assert reading.schema_tokens_list == training.schema_tokens_list
        assert torch.equal(reading.input_ids, training.input_ids)
    kinds = ["json_structures", "entities", "relations", "classifications", "classifications"]
    assert training.task_types == [kinds, kinds]


@BOTH
def test_choices_stand_once_before_the_text_whatever_the_number_of_instances(build, architecture):
    dose = {"처방": {"약물": "인슐린"}}
    rows = [with_structures(*instances) for instances in ((), STRUCTURES[:1], (dose, *STRUCTURES), (dose,))]
    model, schema, windows = build(architecture, *rows)
    batch = batch_of(model, schema, windows)
    prefixes = {tuple(before_the_text(batch, index)) for index in range(4)}
    assert prefixes == {("(", "처방:", "경로", "(", "경구", "|", "정맥", ")", ")")}
    counts = [len(tasks_in(batch, index)["json_structures"][0][1][1]) for index in range(4)]
    assert counts == [1, 1, 3, 1]  # where there is none, one without values
    chosen = [places[2] for places in tasks_in(batch, 2)["json_structures"][0][1][1]]
    assert chosen == [[(4, 4)], [(-1, -1)], [(6, 6)]] or chosen == [[(-1, -1)], [(4, 4)], [(6, 6)]]


def test_documents_teach_the_count_head_how_many_there_are_and_none_is_no_one(build):
    model, schema, windows = build("span", ROW, NEGATIVE, {"text": TEXT, "relations": RELATIONS[:1]})
    bias = torch.linspace(-1, 1, 20)
    with torch.no_grad():
        model.count_pred[-1].weight.zero_()
        model.count_pred[-1].bias.copy_(bias)

    def expected(entities, *counts):
        losses = [torch.nn.functional.cross_entropy(bias, torch.tensor(count)).item() for count in (1, *counts)]
        return entities * losses[0] + COUNT_WEIGHT * sum(losses[1:])

    losses = [model(batch_of(model, schema, [row]))["count_loss"].item() for row in windows]
    # Of structures and relations, beside entities; the last document was annotated for relations only.
    assert losses == pytest.approx([expected(1, 2, 2), expected(1, 0, 0), expected(0, 1)])


@BOTH
def test_documents_without_an_instance_are_negatives_of_its_values(build, architecture):
    model, schema, windows = build(architecture, PLAIN, {"text": "두통.", "json_structures": []})
    outputs = model.train()(batch_of(model, schema, [windows[1]]))
    outputs["total_loss"].backward()
    head = model.span_rep if architecture == "span" else model.boundary_head
    assert sum(p.grad.abs().sum().item() for p in head.parameters() if p.grad is not None) > 0
    if architecture == "span":
        assert outputs["structure_loss"] > 0


@BOTH
@pytest.mark.parametrize("order", [1, -1])
def test_tasks_of_which_one_name_begins_the_other_get_their_own_classes(build, architecture, order):
    classes = {"labels": ["호전", "악화"]}
    names = {"상태": "호전", "상태 변화": "악화", "상태 변화 정도": "호전"}
    given = [{"task": name, **classes, "true_label": label} for name, label in names.items()][::order]
    model, schema, windows = build(architecture, {"text": TEXT, "classifications": given})
    for seeds in (None, *([seed] for seed in range(8))):
        for tokens, gold in tasks_in(batch_of(model, schema, windows, augmentation_seeds=seeds), 0)["classifications"]:
            labels = [tokens[place + 1] for place, token in enumerate(tokens) if token == "[L]"]
            true = [label for label, is_true in zip(labels, gold, strict=True) if is_true]
            assert len(true) == 1
            if true[0] in names.values():  # gliner2 may give classes other names
                assert true == [names[tokens[2]]]


@BOTH
def test_classes_of_such_tasks_are_answered_each_under_its_own_name(build, architecture):
    model, *_ = build(architecture, PLAIN)
    answers = model.extract(TEXT)
    assert answers["상태"] in STATE["labels"]
    assert set(answers["상태 변화"]) <= {"있음", "없음", "모름"}
    short_first = {
        "classifications": [{"task": "상태", "labels": ["가", "나"]}, {"task": "상태 변화", "labels": ["다", "라"]}]
    }
    answers = model.extract(TEXT, short_first)
    assert answers["상태"] in ("가", "나")
    assert answers["상태 변화"] in ("다", "라")


@BOTH
def test_instances_are_in_the_order_of_the_text_whatever_the_order_in_the_row(build, architecture):
    model, schema, windows = build(architecture, ROW)
    tasks = tasks_in(batch_of(model, schema, windows), 0)
    for kind in ("json_structures", "relations"):
        ((_, (count, instances)),) = tasks[kind]
        firsts = [instance[0] for instance in instances]
        assert count == 2
        assert firsts == sorted(firsts)
        assert firsts[0] != firsts[1]


@BOTH
def test_augmented_prompts_keep_every_instance(build, architecture):
    model, schema, windows = build(architecture, ROW)
    rows = [windows[0]] * 12
    batch = batch_of(model, schema, rows, augmentation_seeds=range(12))
    assert len({str(tokens) for tokens in batch.schema_tokens_list}) > 1
    for index in range(12):
        tasks = tasks_in(batch, index)
        for kind in tasks.keys() & {"json_structures", "relations"}:
            ((tokens, (count, _)),) = tasks[kind]
            assert count == 2
            assert len([token for token in tokens if token in ("[C]", "[R]")]) == {"relations": 2}.get(kind, 3)
        for prefix in [before_the_text(batch, index)]:
            assert sorted(prefix) == sorted(["(", "처방:", "경로", "(", "경구", "|", "정맥", ")", ")"])


@BOTH
def test_a_relation_with_a_description_is_found_under_its_own_name(build, architecture):
    model, schema, _ = build(architecture, PLAIN)
    assert schema.of_kind("relations")[0].prompt
    found = model.extract(TEXT, threshold=0.1)
    assert found["relation_extraction"].keys() == {"치료"}
    assert found["relation_extraction"]["치료"]
    assert not any(name.startswith("치료") for name in found)


@BOTH
def test_the_classifier_is_kept_if_any_row_trains_it_and_frozen_if_none_does(build, architecture):
    """gliner2's batches are seen one at a time: on a mixed corpus the first one may have no classes."""
    entities = [{"text": TEXT, "entities": {"Drug": ["인슐린"]}}] * 6
    classes = {"text": "호전.", "classifications": [STATE]}
    for rows, is_trained in (([*entities, classes], True), (entities, False)):
        model, schema, windows = build(architecture, *rows)
        size, unused = find_batch_size(model, windows, schema, 2, Accelerator(cpu=True))
        assert size == 2
        assert ("classifier" in unused) is not is_trained
        assert all(parameter.requires_grad is is_trained for parameter in model.classifier.parameters())
        kinds = {task.kind for task in schema.tasks}
        assert all(f"{name}.".startswith(model.untrained(kinds)) for name in unused if not name.startswith("encoder."))
    model, schema, windows = build(architecture, *entities, classes)
    assert "classifier" in freeze_unused(model, [batch_of(model, schema, windows.select(range(6)))])


@BOTH
def test_no_head_of_a_corpus_with_all_tasks_is_frozen(build, architecture):
    rows = [{name: value for name, value in PLAIN.items() if kind in name or name == "text"}
            for kind in EVERYTHING]  # fmt: skip
    model, schema, windows = build(architecture, *rows)
    _, unused = find_batch_size(model, windows, schema, 1, Accelerator(cpu=True))
    heads = [name for name in unused if not name.startswith("encoder.")]
    assert all(f"{name}.".startswith(model.untrained({task.kind for task in schema.tasks})) for name in heads)
    assert not {"classifier", "record_decoder", "relation_scorer", "count_pred"} & set(heads)
    # Whatever a batch asks, every head that is trained has a gradient: DistributedDataParallel waits for it.
    outputs = model(batch_of(model, schema, windows.select([1])))
    touched = model.touch_heads()
    assert touched == 0
    (outputs["total_loss"] + touched).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None and n[:8] != "encoder."]


@BOTH
@pytest.mark.parametrize(
    "row",
    [PLAIN, ROW],
)
def test_the_best_starts_of_entities_are_theirs_when_a_structure_stands_first(build, write_rows, architecture, row):
    model, schema, windows = build(architecture, row)
    assert batch_of(model, schema, windows).task_types[0][0] == "json_structures"
    words = windows[0]["words"]
    (best,) = model.eval().best_starts(model.processor.collate([Window(TEXT, words, schema.labels)], schema))
    documents = model.split(read(write_rows, row), schema)
    (spans,) = predict_spans(model, documents, schema).candidates
    expected = torch.zeros(len(schema.labels), len(words))
    for span in spans:
        place = schema.labels.index(span.label), [start for start, _ in words].index(span.start)
        expected[place] = max(expected[place].item(), span.score)
    assert best.shape == expected.shape
    torch.testing.assert_close(best.float() * (expected > 0), expected, atol=1e-4, rtol=0)
    assert expected.count_nonzero() > len(words) / 2


@BOTH
def test_a_row_is_asked_only_what_it_was_annotated_for(build, architecture):
    other = {"text": "두통.", "classifications": [STATE]}
    model, schema, windows = build(
        architecture, PLAIN, other, {"text": "두통.", "entities": {}}, {"text": "두통.", "relations": []}
    )
    batch = batch_of(model, schema, windows)
    assert batch.task_types[1:] == [["classifications"], ["entities"], ["relations"]]
    assert [tokens[2] for tokens in batch.schema_tokens_list[1]] == ["상태"]
    assert [window["labels"] for window in windows][1:3] == [[], ["Disease", "Drug"]]
    if architecture == "span":
        losses = model(batch_of(model, schema, windows.select([1])))
        assert losses["structure_loss"] == losses["count_loss"] == 0
        assert losses["classification_loss"] > 0


def test_a_document_that_was_annotated_for_nothing_asked_is_left_out(build, write_rows):
    rows = PLAIN, {"text": "두통.", "classifications": [STATE]}, {"text": "두통.", "relations": []}
    model, schema, windows = build("span", *rows)
    assert len(windows) == 3
    assert len(training_windows(model.align(read(write_rows, *rows)), schema.entities_only())) == 1


def test_word_dropout_leaves_the_choices_alone(build):
    model, schema, windows = build("span", ROW)
    plain = WindowCollator(model.processor, schema)([windows[0]])["batch"]
    dropped = WindowCollator(model.processor, schema, word_dropout=0.99)([windows[0]])["batch"]
    first = plain.text_word_indices[0, len(before_the_text(plain, 0))]
    assert not torch.equal(plain.input_ids[0, first:], dropped.input_ids[0, first:])
    assert torch.equal(plain.input_ids[0, :first], dropped.input_ids[0, :first])


def test_windows_to_read_have_room_for_the_values_of_structures(build):
    wide, limits = TEXT[:-1], []
    short = {"text": "열이 났다.", "entities": {}, "json_structures": []}
    for found in ({"entities": {"기록": [wide]}}, {"json_structures": [{"기록": {"문장": wide}}]}):
        model, _, windows = build("boundary", *[short] * 60, {**short, "text": TEXT, **found})
        model.fit_to(windows)
        limits.append(model.window_limits["max_text"])
    assert limits[0] == limits[1]


def test_a_boundary_model_finds_no_value_before_the_text(build, write_rows):
    model, schema, _ = build("boundary", ROW)
    rows = read(write_rows, {"text": "두통.", **{name: [] for name in ("json_structures", "relations")}})
    (found,) = predict_spans(model, model.split(rows, schema), schema, floor=0.0).found(
        {t.name: 0.0 for t in schema.tasks}
    )
    assert all("경로" in each or any(each.values()) for each in found.structures["처방"])


@pytest.mark.parametrize(
    "architecture",
    ["span", "boundary"],
)
def test_a_model_for_classes_only_is_saved_loaded_and_answers(build, architecture, tmp_path):
    model, schema, windows = build(architecture, {"text": TEXT, "classifications": [STATE]})
    assert not schema.labels
    outputs = model.train()(batch_of(model, schema, windows))
    check_step(outputs, model, batch_of(model, schema, windows))
    model.save_pretrained(tmp_path)
    loaded, difference = load_and_compare(tmp_path, model.reference_scores())
    assert difference < 1e-4
    assert loaded.extract(TEXT) == model.extract(TEXT)
    assert set(loaded.extract(TEXT)) == {"상태"}


DRUGS, DISEASES = ["인슐린", "메트포르민", "세파클러", "아스피린"], ["당뇨병", "폐렴", "고혈압", "두통"]


def corpus(number, kinds=EVERYTHING):
    """Documents of three patterns; ``kinds`` are the beginnings of the keys that they have, or one such list a row."""
    draw, rows = random.Random(1), []
    for index in range(number):
        disease, (drug, other), dose = draw.choice(DISEASES), draw.sample(DRUGS, 2), draw.choice([5, 10, 20])
        course, route = ("호전", "악화")[index % 2], draw.choice(CHOICES)
        chosen = {"경로": {"value": route, "choices": CHOICES}}
        first = {"처방": {"약물": drug, "용량": f"{dose}mg", **chosen}}
        text, entities, pairs, structures = [
            (f"{disease} 경과 {course}됨.", {"Disease": [disease]}, [], []),
            (
                f"{disease}으로 {drug} {dose}mg {route} 투여하고 {course}됨.",
                {"Disease": [disease], "Drug": [drug]},
                [{"치료": {"head": drug, "tail": disease}}],
                [first],
            ),
            (
                f"{drug} {dose}mg {route} 투여, {other} 3mg 투여. {course}됨.",
                {"Drug": [drug, other]},
                [],
                [{"처방": {"약물": other, "용량": "3mg"}}, first],
            ),
        ][index % 3]
        found = [name for name, label in (("진단", "Disease"), ("투약", "Drug")) if entities.get(label)]
        row = {
            "entities": {"Disease": [], "Drug": [], **entities},
            "classifications": [
                {"task": "경과", "labels": ["호전", "악화"], "true_label": course},
                {"task": "경과 내용", "labels": ["진단", "투약"], "true_label": found, "multi_label": True},
            ],
            "relations": pairs,
            "relation_descriptions": {"치료": "약이 병을 낫게 한다"},
            "json_structures": structures,
            "json_descriptions": {"처방": {"약물": "처방한 약"}},
        }
        own = kinds[index % len(kinds)] if isinstance(kinds[0], tuple) else kinds
        rows.append({"text": f"{index}. {text}", **{name: row[name] for name in row if name.startswith(own)}})
    return rows


@BOTH
def test_augmented_prompts_are_never_empty(build, architecture):
    model, schema, windows = build(architecture, {"text": TEXT, "json_structures": STRUCTURES})
    batch = batch_of(model, schema, [windows[0]] * 30, augmentation_seeds=range(30))
    assert all(batch.task_types)


def train(model, schema, windows, steps):
    """Some steps without chance; returns the losses of the first and of the last batch."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    collator, seen = WindowCollator(model.processor, schema), []
    optimizer = torch.optim.AdamW(parameter_groups(model, 5e-3, 5e-3, 0.0))
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        model.anneal(step, steps)
        entry = collator([windows[(6 * step + index) % len(windows)] for index in range(6)])
        losses = model.summed_losses(model(entry["batch"]), 6)
        losses[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen.append(dict(zip(("loss", *model.loss_parts), (each.item() for each in losses), strict=True)))
    return seen[0], seen[-1]


@pytest.mark.slow(9)
def test_a_model_learns_all_tasks_and_that_there_may_be_nothing(pair, write_rows):
    rows = read(write_rows, *corpus(12))
    schema = label_schema(rows)
    torch.manual_seed(0)
    model, _ = swap_encoder(*pair, schema=schema)
    train(model, schema, training_windows(model.align(rows), schema), 80)
    predictions, examples = predict_spans(model, model.split(rows), schema), list(map(Example.from_row, rows))
    found = predictions.found(choose_thresholds(examples, predictions.found, schema.tasks))
    f1 = {
        (task.name, metric): scores.overall.f1
        for task in schema.tasks
        for metric, scores in score_task(examples, found, task).items()
    }
    assert f1["경과", "class_f1"] > 0.7
    assert f1["경과 내용", "class_f1"] > 0.9
    assert f1["처방", "field_f1"] > 0.5
    assert f1["처방", "count_accuracy"] > 0.4  # a third has none, one and two
    relations, structures = (invented(examples, found, task) for task in schema.tasks[2:])
    assert relations == (0, 8)
    assert structures == (0, 4)


@pytest.mark.slow(5)
def test_the_heads_of_a_boundary_model_learn_relations_and_records(build):
    rows = corpus(6)
    model, schema, windows = build("boundary", *rows)
    first, last = train(model, schema, windows, 14)
    assert last["record_field_loss"] < first["record_field_loss"] / 2
    assert last["relation_loss"] < first["relation_loss"] / 2
    assert last["start_loss"] < first["start_loss"]
