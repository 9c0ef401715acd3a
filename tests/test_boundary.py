"""What only a base of the boundary architecture (GLiNER2.5) can get wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import shut_gate, swap_and_spread
from gliner2 import AutoExtractor
from gliner2.training.trainer import ExtractorTrainer, TrainingConfig
from test_swap import edit_json

from glinerko import KoreanWordSplitter, load_extractor
from glinerko.common import SwapError, TrainingError
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.windows import span_outcomes, training_windows, window_from_row
from glinerko.model.boundary import CLASSIFICATION_WEIGHT, OPEN_GATE
from glinerko.model.prediction import predict_spans
from glinerko.model.swap import swap_encoder, weight_checksum
from glinerko.scoring.analysis import ErrorClass, find_unscored, judge_spans
from glinerko.training.batches import WindowCollator
from glinerko.training.optimizer import check_gradient, check_step, freeze_unused, parameter_groups
from glinerko.verification import checks
from glinerko.verification.checks import Status, verify_swap

TEXT = "당뇨병으로 내원하여 MRI 촬영 후 메트포르민 500mg을 투여하였다."


@pytest.fixture
def model(bases, pair, schema):
    return swap_and_spread(bases, pair, "boundary", schema)


@pytest.fixture
def windows(model, sample_rows, schema):
    return training_windows(model.align(sample_rows.select(range(16))), schema)


@pytest.fixture
def crowded(write_rows):
    """A document of 60 mentions, each of its own words."""
    drugs = [f"약{number}" for number in range(60)]
    return load_rows(write_rows({"text": " , ".join(drugs), "entities": {"Drug": drugs}}))[0]


def shared(model, **changes):
    """Change settings of the shared pool behind the back of the model."""
    settings = replace(model.boundary_settings, **changes)
    model.boundary_settings = model.boundary_head.settings = settings
    model.boundary_head.shared_pool_builder.pool_size = settings.pool_size
    model.boundary_head.shared_pool_builder.pool_boundary_top_k = settings.pool_boundary_top_k


def test_the_swap_keeps_all_heads_and_opens_the_gate(bases, pair, schema):
    base = load_extractor(bases["boundary"])
    model, report = swap_encoder(bases["boundary"], pair[1], schema=schema)
    assert set(report.kept) == {"classifier", "boundary_head", "record_decoder", "relation_scorer"}
    for head, digest in report.kept.items():
        assert weight_checksum(getattr(base, head)) == weight_checksum(getattr(model, head)) == digest
    assert report.changed["abstention gate"] == ("above 0.5", "open")
    assert model.boundary_settings.abstention_threshold == OPEN_GATE
    assert model.max_width is None
    assert "max_width" not in report.changed


def test_what_the_base_says_about_overlaps_is_kept(bases, pair, schema, tmp_path):
    base = shutil.copytree(bases["boundary"], tmp_path / "base")
    head = json.loads((base / "config.json").read_text())["boundary_head"]
    edit_json(base / "config.json", boundary_head={**head, "overlap_policy": "nested", "adaptive_threshold": True})
    model, _ = swap_encoder(base, pair[1], schema=schema)
    model.save_pretrained(tmp_path / "model")
    plain = AutoExtractor.from_pretrained(str(tmp_path / "model"), word_splitter=KoreanWordSplitter())
    types = {label: {"description": text} for label, text in schema.descriptions.items()}
    options = {"threshold": 0.6, "include_spans": True}
    theirs = plain.extract_entities(TEXT, types, **options)["entities"]
    for each in (model, load_extractor(tmp_path / "model")):
        ours = each.extract_entities(TEXT, **options)["entities"]
        assert as_sets(ours) == as_sets(theirs)
    assert as_sets(model.extract_entities(TEXT, overlap_policy="flat", **options)["entities"]) != as_sets(theirs)
    assert not model.boundary_settings.adaptive_threshold  # else spans below the threshold are found
    assert model.boundary_settings.classification_loss_weight == CLASSIFICATION_WEIGHT


def as_sets(entities: dict) -> dict[str, set]:
    return {label: {(mention["start"], mention["end"]) for mention in found} for label, found in entities.items()}


@pytest.mark.parametrize("ending", ["", "."])
def test_the_full_stop_that_is_added_displaces_nothing(model, ending):
    """Candidates that reach it are left out before anything is chosen, in all tasks."""
    text = f"{TEXT[:-1]}{ending}"
    schema = model.create_schema().structure("처방").field("약물", dtype="str").field("용량").relations(["치료"])
    found = model.extract(text, schema, threshold=0.01, include_spans=True)
    (record,) = found["처방"]
    assert record["약물"]
    assert record["용량"]
    limit = len(TEXT) - 1 if not ending else len(TEXT)
    assert max(mention["end"] for mention in record["용량"]) <= limit
    assert found["relation_extraction"]["치료"]
    for pair in found["relation_extraction"]["치료"]:
        assert all(text[end["start"] : end["end"]] == end["text"] for end in pair.values())


def test_a_widest_span_is_refused(bases, pair):
    with pytest.raises(SwapError, match="no widest span"):
        swap_encoder(bases["boundary"], pair[1], max_width=12)


def test_plain_gliner2_obeys_the_open_gate(model, tmp_path, schema):
    """Its head says that nothing is there; the threshold in config.json says that this is not asked."""
    with torch.no_grad():
        model.boundary_head.null_projection.bias += 1000.0
    model.configure(threshold=0.5)
    model.save_pretrained(tmp_path)
    plain = AutoExtractor.from_pretrained(str(tmp_path), word_splitter=KoreanWordSplitter())
    assert type(plain).__name__ == "BoundaryExtractor"
    types = {label: {"description": text} for label, text in schema.descriptions.items()}
    theirs = plain.extract_entities(TEXT, types, threshold=0.5, include_spans=True)["entities"]
    ours = load_extractor(tmp_path).extract_entities(TEXT, include_spans=True)["entities"]
    assert any(theirs.values())
    assert as_sets(ours) == as_sets(theirs)
    head = json.loads((tmp_path / "config.json").read_text())["boundary_head"]
    edit_json(tmp_path / "config.json", boundary_head={**head, "abstention_threshold": 0.5})
    assert not any(load_extractor(tmp_path).extract_entities(TEXT)["entities"].values())


@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_score_that_is_no_number_stops_with_the_document(model, windows, schema, part):
    """gliner2 counts such a loss as 0."""
    rows = [windows[index] for index in range(3)]
    entry = WindowCollator(model.processor, schema)(rows)
    model.train()
    check_step(model(entry["batch"]), model, entry["batch"], entry["ids"])
    with torch.no_grad():
        if part == "encoder":  # a piece that only the second text has
            ids = [set(each.tolist()) for each in entry["batch"].input_ids]
            only = next(iter(ids[1] - ids[0] - ids[2]))
            model.encoder.get_input_embeddings().weight[only] = float("nan")
            expected = f"[(]document {rows[1]['id']}: [^;]*start[^;]*not finite[)]"
        else:
            model.boundary_head.null_projection.bias.fill_(float("nan"))
            expected = f"document {rows[0]['id']}: null scores not finite; document {rows[1]['id']}"
    outputs = model(entry["batch"])
    assert outputs["total_loss"].isfinite()
    with pytest.raises(TrainingError, match=expected):
        check_step(outputs, model, entry["batch"], entry["ids"])


def test_a_gradient_that_is_no_number_stops_with_the_documents():
    check_gradient(torch.tensor(1.0), "no", "here")
    check_gradient(torch.tensor(float("nan")), "fp16", "here")  # Accelerate leaves out such a step
    with pytest.raises(TrainingError, match=r"gradient is not finite .documents a, b"):
        check_gradient(torch.tensor(float("inf")), "bf16", "documents a, b")


def test_a_loss_that_gliner2_would_leave_out_stops_the_training(model, windows, schema, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("no such pair")

    monkeypatch.setattr(model.plain, "_relation_loss", fail)
    batch = model.processor.collate([window_from_row(windows[0])], schema)
    with pytest.raises(TrainingError, match="relations cannot be computed: no such pair"):
        model.train()(batch)


def test_heads_of_other_tasks_neither_move_nor_decay(model, windows, schema):
    batch = model.processor.collate([window_from_row(windows[index]) for index in range(4)], schema)
    unused = freeze_unused(model, [batch])
    assert {"classifier", "record_decoder", "relation_scorer"} <= set(unused)
    assert all(
        f"{name}.".startswith(model.untrained(frozenset())) for name in unused if not name.startswith("encoder.")
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2, 1e-2, 0.5))
    model(batch)["total_loss"].backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(f"{name}.".startswith(tuple(f"{each}." for each in unused)) for name in moved)


@pytest.mark.parametrize(("step", "steps"), [(0, 100), (10, 100), (15, 100), (57, 100), (99, 100), (5000, 30000)])
def test_what_changes_in_training_is_as_in_the_trainer_of_gliner2(model, windows, schema, tmp_path, step, steps):
    trainer = ExtractorTrainer(model=model, config=TrainingConfig(output_dir=str(tmp_path), fp16=False, num_workers=0))
    trainer.global_step, trainer._planned_max_steps = step, steps
    trainer._backward_one(model.processor.collate([window_from_row(windows[0])], schema), 0, False, torch.bfloat16)
    head = model.boundary_head
    theirs = head._gold_injection_prob, head._consistency_scale, head._soft_iou_scale
    for scale in (head.set_gold_injection_prob, head.set_consistency_scale, head.set_soft_iou_scale):
        scale(0.123)
    model.anneal(step, steps)
    assert (head._gold_injection_prob, head._consistency_scale, head._soft_iou_scale) == theirs


def test_limits_are_raised_to_what_the_corpus_holds_and_saved(model, crowded, tmp_path):
    """gliner2 stops at 32 mentions of a label in a text, and its pool has 32 starts."""
    schema = label_schema(crowded)
    model.configure(labels=schema.labels, descriptions={})
    windows = training_windows(model.align(crowded), schema)
    batch = model.processor.collate([window_from_row(windows[0])], schema)
    assert batch.targets.mention_mask.sum() == 60
    model.fit_to(windows)
    model.save_pretrained(tmp_path)
    loaded = load_extractor(tmp_path)
    for each in (model, loaded):
        settings, builder = each.boundary_settings, each.boundary_head.shared_pool_builder
        assert (settings.pool_boundary_top_k, settings.pool_size) == (120, 192)
        assert (builder.pool_boundary_top_k, builder.pool_size) == (120, 192)
    assert loaded.window_limits == model.window_limits
    limits = model.boundary_settings
    model.set_limits(1, 1)
    assert model.boundary_settings == limits


def test_gold_without_a_candidate_is_counted_as_such(model, sample_rows, schema):
    """What a pool that is too small leaves out has no score, and is not merely scored low."""
    aligned = model.align(sample_rows.select(range(16)), schema)
    nothing, names = [[]] * len(aligned), {label: label for label in schema.labels}
    assert not any(find_unscored(model, aligned, schema, names, nothing, 4))
    shared(model, pool_boundary_top_k=6, pool_size=8, min_pool_per_query=1)
    lost = find_unscored(model, aligned, schema, names, nothing, 4)
    predicted = predict_spans(model, aligned, schema, floor=0.0).candidates
    examples, outcomes = [Example.from_row(row) for row in aligned], [span_outcomes(row) for row in aligned]
    for example, own, spans in zip(examples, lost, predicted, strict=True):
        assert own == example.gold_spans - {span.key for span in spans}
    judged = judge_spans(examples, outcomes, nothing, schema.labels, not_scored=lost)
    classes = [item.error for document in judged for item in document]
    assert classes.count(ErrorClass.NO_CANDIDATE) == sum(map(len, lost)) > 0
    assert classes.count(ErrorClass.MISSED) == len(classes) - sum(map(len, lost)) > 0
    found = [[item.span for item in document] for document in judged]
    assert not any(find_unscored(model, aligned, schema, names, found, 4))


def test_windows_to_read_are_as_long_as_those_of_training(model, windows, sample_rows, schema):
    """Scores depend on the length of a mention divided by that of its text."""
    model.fit_to(windows)
    room = model.window_limits["max_text"]
    lengths = [sum(map(len, model.processor.word_pieces(row["text"], row["words"]))) for row in windows]
    assert sorted(lengths)[-2] <= room <= 1.2 * max(lengths) + 1
    long = " ".join(sample_rows["text"][:16])
    answers = model.extract_entities(long, threshold=0.3, include_spans=True)["entities"]
    assert max(mention["end"] for found in answers.values() for mention in found) > len(long) * 0.8
    row = model.split(sample_rows.select([0]).map(lambda row: {"text": long, "mentions": []}))[0]
    assert len(row["windows"]) >= len(long) / max(map(len, sample_rows["text"][:16])) / 2
    pieces = [len(each) for each in model.processor.word_pieces(long, row["words"])]
    assert all(sum(pieces[first:last]) <= room for first, last in row["windows"])
    # Longer descriptions leave as much room for the text.
    described = dict.fromkeys(schema.labels, "아주 긴 설명 " * 10)
    _, (more, _) = model._prompt(model.entity_schema(described))
    assert more == room


def test_a_few_long_documents_are_read_in_long_windows(model, write_rows, sample_rows, schema):
    """Windows for what most of the text is, and never too short for a mention."""
    texts = [text for text in sample_rows["text"][:40] if text.endswith(".")]
    long, wide = " ".join(texts), texts[0][:-1]
    short = [{"text": "열이 났다.", "entities": {}}] * 60
    rows, _ = load_rows(write_rows(*short, {"text": long, "entities": {}}))
    windows = training_windows(model.align(rows, schema), schema)
    model.fit_to(windows)
    pieces = max(sum(map(len, model.processor.word_pieces(row["text"], row["words"]))) for row in windows)
    assert model.window_limits["max_text"] >= pieces
    rows, _ = load_rows(write_rows(*short, {"text": f"{wide}.", "entities": {"Drug": [wide]}}))
    model.fit_to(training_windows(model.align(rows, schema), schema))
    (row,) = model.align(load_rows(write_rows({"text": long, "entities": {"Drug": [wide]}}))[0], schema)
    assert row["outcomes"] == [["target"]]
    assert len(row["windows"]) > 3


NAMES = {"safe files", "gate", "loss and gradients", "heads kept", "save and reload", "extraction"}


@pytest.fixture(scope="session")
def rows(sample_rows):
    return sample_rows.select(range(40))


def test_all_checks_pass(bases, pair, rows):
    results = {check.name: check for check in verify_swap(bases["boundary"], pair[1], rows)}
    assert len(results) == 13
    assert results.keys() >= NAMES
    assert all(check.status in (Status.PASS, Status.WARN) for check in results.values()), results
    assert "abstention gate 100% open" in results["gate"].evidence


def test_planted_faults_fail(model, windows, schema, crowded):
    few = [window_from_row(row) for row in windows]
    assert checks.check_backward(model, few[:4], schema).status is Status.PASS
    own = label_schema(crowded)
    full = [window_from_row(row) for row in training_windows(model.align(crowded, own), own)]
    shared(model, pool_boundary_top_k=8, pool_size=16)
    failed = checks.check_backward(model, full, own)
    assert (failed.status, failed.evidence) == (Status.FAIL, "52 of 60 mentions have no room")
    shared(model, pool_boundary_top_k=8, pool_size=192)
    assert checks.check_backward(model, full, own).status is Status.FAIL
    shared(model, pool_boundary_top_k=64)
    shut_gate(model)
    assert checks.check_gate(model, few, schema).status is Status.FAIL
    with torch.no_grad():
        model.boundary_head.null_projection.bias.fill_(float("nan"))
    broken = checks.check_backward(model, few[:4], schema)
    assert broken.status is Status.FAIL
    assert "null scores not finite" in broken.evidence
