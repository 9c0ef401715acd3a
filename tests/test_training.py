from __future__ import annotations

import pickle
import platform
import subprocess
import sys
from functools import partial
from itertools import pairwise

import pytest
import torch
from accelerate import Accelerator
from conftest import split_and_align
from gliner2.inference.engine import SpanExtractor

from glinerko import cli
from glinerko.common import TrainingError
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.model.lora import add_lora
from glinerko.model.prediction import predict_spans
from glinerko.model.swap import swap_encoder, weight_checksum
from glinerko.training.batches import WindowCollator
from glinerko.training.optimizer import average_weights, averaged_weights, check_step, freeze_unused, parameter_groups
from glinerko.training.speed import (
    FastCpuDropout,
    enable_fast_attention,
    install_fast_attention,
    use_fast_dropout,
)


@pytest.fixture
def windows(model, sample_rows, schema):
    return training_windows(
        split_and_align(sample_rows.select(range(32)), model.processor, schema, max_width=12), schema
    )


@pytest.fixture
def batch(model, windows, schema):
    return model.processor.collate([window_from_row(row) for row in windows.select(range(4))], schema)


def train(model, windows, schema, steps: int) -> None:
    collator = WindowCollator(model.processor, schema)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2, 1e-2, 0.0))
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        outputs = model(collator([windows[(8 * step + index) % len(windows)] for index in range(8)])["batch"])
        (outputs["total_loss"] / 8).backward()
        optimizer.step()
    model.eval()


@pytest.mark.slow(5)
def test_closed_count_gate_is_opened_by_training(model, sample_rows, windows, schema):
    with torch.no_grad():
        model.count_pred[-1].bias.zero_()
        model.count_pred[-1].bias[0] = 10.0
    annotated = split_and_align(sample_rows, model.processor, schema, max_width=12)
    assert predict_spans(model, annotated, schema, floor=0.0).closed_gates == len(annotated)
    train(model, windows, schema, steps=40)
    # On every document, those without entities and those never trained on included.
    assert predict_spans(model, annotated, schema).closed_gates == 0


@pytest.mark.parametrize("mask_invalid", [True, False])
def test_spans_get_the_scores_and_gradients_that_gliner2_gives_them(model, mask_invalid):
    lengths = (5, 20, 1, 12)
    states = [torch.randn(length, model.hidden_size) for length in lengths]
    queries = [torch.randn(3, model.hidden_size) for _ in lengths]

    def scored(score) -> tuple[list[torch.Tensor], torch.Tensor]:
        inside = []
        for scores, length in zip(score(states, queries, mask_invalid=mask_invalid), lengths, strict=True):
            fits = torch.arange(length)[:, None] + torch.arange(12) < length
            assert (scores[:, ~fits].isneginf() if mask_invalid else scores[:, ~fits].isfinite()).all()
            inside.append(scores[:, fits])
        model.zero_grad()
        sum(each.sin().sum() for each in inside).backward()
        return inside, torch.cat([weight.grad.flatten() for weight in model.span_rep.parameters()])

    inside, gradients = scored(model.compute_span_scores_batched)
    model._compute_span_scores_core = SpanExtractor._compute_span_scores_core.__get__(model)
    expected, expected_gradients = scored(lambda *a, **k: SpanExtractor.compute_span_scores_batched(model, *a, **k))
    for ours, theirs in zip(inside, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


def test_count_target_is_one_with_and_without_entities(model, windows, schema):
    bias = torch.linspace(-1, 1, 20)
    with torch.no_grad():
        model.count_pred[-1].weight.zero_()
        model.count_pred[-1].bias.copy_(bias)
    expected = torch.nn.functional.cross_entropy(bias, torch.tensor(1)).item()
    with_entities, without = (next(row for row in windows if bool(row["targets"]) is kind) for kind in (True, False))
    for row in (with_entities, without):
        batch = model.processor.collate([window_from_row(row)], schema)
        assert model(batch)["count_loss"].item() == pytest.approx(expected)


def test_every_trainable_parameter_is_in_exactly_one_group(model, batch):
    freeze_unused(model, [batch])
    groups = parameter_groups(model, 2e-5, 5e-4, 0.01)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(trainable)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (2e-5, 0.01),
        (2e-5, 0.0),
        (5e-4, 0.01),
        (5e-4, 0.0),
    ]
    for group in groups:
        for parameter in group["params"]:
            name = trainable[id(parameter)]
            assert name.startswith("encoder.") == (group["lr"] == 2e-5)
            assert ("bias" in name or "norm" in name.lower()) == (group["weight_decay"] == 0.0)


def test_only_the_classification_head_gets_no_gradient_and_is_frozen(model, batch):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert freeze_unused(model, [batch]) == ["classifier"]
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    frozen = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"classifier"}


def test_a_loss_that_is_not_finite_stops_with_the_document(model, windows, schema):
    rows = [windows[index] for index in range(3)]
    entry = WindowCollator(model.processor, schema)(rows)
    with torch.no_grad():
        model.span_rep.span_rep_layer.project_start[0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=f"document {rows[1]['id']}: loss nan"):
        check_step(model(entry["batch"]), model, entry["batch"], entry["ids"])


def test_a_sample_that_gliner2_swallows_stops_with_the_document(model, windows, schema, monkeypatch, capsys):
    rows = [windows[index] for index in range(3)]
    entry = WindowCollator(model.processor, schema)(rows)
    original = type(model).compute_struct_loss_from_scores
    calls = iter(range(99))

    def fail_on_second(self, *args, **kwargs):
        if next(calls) % 3 == 1:
            raise ValueError("no such span")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "compute_struct_loss_from_scores", fail_on_second)
    with pytest.raises(TrainingError, match=f"document {rows[1]['id']}: no loss .no such span"):
        check_step(model(entry["batch"]), model, entry["batch"], entry["ids"])


def prompts(collator: WindowCollator, rows: list) -> dict[str, list[int]]:
    batch = collator(rows)
    lengths = batch["batch"].original_lengths
    return {
        name: ids[:length].tolist()
        for name, ids, length in zip(batch["ids"], batch["batch"].input_ids, lengths, strict=True)
    }


def test_augmented_prompts_depend_on_seed_epoch_and_document_alone(model, windows, schema):
    rows = [windows[index] for index in range(12)]
    collator = WindowCollator(model.processor, schema, augment=True, seed=1)
    first = prompts(collator, rows)
    assert prompts(collator, rows[::-1]) == first
    assert {**prompts(collator, rows[:5]), **prompts(collator, rows[5:])} == first
    collator.epoch = 1
    assert prompts(collator, rows) != first
    assert prompts(WindowCollator(model.processor, schema, augment=True, seed=2), rows) != first


def test_batches_travel_between_processes(model, windows, schema):
    entry = WindowCollator(model.processor, schema)([windows[0]])
    again = pickle.loads(pickle.dumps(entry))
    assert torch.equal(again["batch"].input_ids, entry["batch"].input_ids)
    assert again["batch"].original_texts == entry["batch"].original_texts


def test_plain_prompts_are_the_same_for_every_document(model, windows, schema):
    batch = WindowCollator(model.processor, schema)([windows[index] for index in range(12)])["batch"]
    assert len({tuple(tokens[0]) for tokens in batch.schema_tokens_list}) == 1
    assert [token for token in batch.schema_tokens_list[0][0] if token in schema.labels] == list(schema.labels)


def test_word_dropout_masks_whole_words_of_the_text_and_nothing_else(model, windows, schema):
    rows = [windows[index] for index in range(12)]
    plain = WindowCollator(model.processor, schema)(rows)["batch"]
    collator = WindowCollator(model.processor, schema, word_dropout=0.3)
    batch = collator(rows)["batch"]
    mask, masked, words = model.processor.tokenizer.mask_token_id, 0, 0
    for index, count in enumerate(plain.text_word_counts):
        bounds = [*plain.text_word_indices[index, :count].tolist(), plain.original_lengths[index]]
        assert torch.equal(batch.input_ids[index, : bounds[0]], plain.input_ids[index, : bounds[0]])
        assert torch.equal(batch.input_ids[index, bounds[-1] :], plain.input_ids[index, bounds[-1] :])
        for start, end in pairwise(bounds):
            dropped = bool((batch.input_ids[index, start:end] == mask).all())
            assert dropped or torch.equal(batch.input_ids[index, start:end], plain.input_ids[index, start:end])
            masked += dropped
        words += count
    assert 0.2 < masked / words < 0.4
    assert torch.equal(collator(rows)["batch"].input_ids, batch.input_ids)
    collator.epoch = 1
    assert not torch.equal(collator(rows)["batch"].input_ids, batch.input_ids)


def test_training_learns(model, sample_rows, windows, schema):
    entry = WindowCollator(model.processor, schema)([windows[index] for index in range(16)])
    before = model(entry["batch"])["total_loss"].item()
    train(model, windows, schema, steps=20)
    assert model(entry["batch"])["total_loss"].item() < before / 2


def test_weights_are_averaged_over_the_steps_later_ones_weighing_more():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    average_weights(optimizer, 2)
    passed = []
    for _ in range(6):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        passed.append(model.weight.detach().clone())
    # t (t + 1) of the weights of step t, in place of t².
    shares = torch.tensor([t * (t + 1.0) for t in range(1, 7)])
    expected = (torch.stack(passed) * shares[:, None, None]).sum(0) / shares.sum()
    with averaged_weights(optimizer):
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, passed[-1])


def enable(model, wanted: str = "auto"):
    return enable_fast_attention(
        model.encoder, wanted, Accelerator(cpu=True), partial(install_fast_attention, model, model.encoder)
    )


def test_fast_attention_gives_the_same_states_and_saves_the_same_weights(model, batch):
    model.eval()
    with torch.no_grad():
        eager = model(batch)["total_loss"]
    names, weights = list(model.state_dict()), weight_checksum(model)
    assert enable(model) == "disentangled_flash"
    assert (list(model.state_dict()), weight_checksum(model)) == (names, weights)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(batch)["total_loss"], eager)
    assert model._disentangled_flash_batches["packed"] > 0


def test_fast_attention_is_not_blamed_for_an_encoder_that_tells_no_pieces_apart(model):
    with torch.no_grad():
        weight = model.encoder.get_input_embeddings().weight
        weight.copy_(weight[:1].expand_as(weight))  # its attention has no gradient
    assert enable(model) == "disentangled_flash"


def test_fast_attention_that_differs_is_not_used(model):
    def wrong(backend):
        model.train().enable_disentangled_flash(backend=backend, inference=False)
        with torch.no_grad():
            model.encoder.embeddings.LayerNorm.weight.mul_(1.1)

    with pytest.raises(TrainingError, match="--attention_backend eager"):
        enable_fast_attention(model.encoder, "auto", Accelerator(cpu=True), wrong)


def test_attention_stays_eager_where_it_must_and_says_why(model, pair):
    assert enable(model, "eager") == "eager"
    lora = swap_encoder(pair[0], None)[0]
    add_lora(lora, str(pair[0]))
    assert enable(lora) == "eager (disentangled-flash passes LoRA adapters by)"
    with pytest.raises(TrainingError, match="LoRA"):
        enable(lora, "disentangled_flash")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cheap_dropout_is_dropout(dtype):
    dropout = FastCpuDropout(0.1)
    states = torch.ones(1000, 101, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    dropped = dropout(states)
    assert dropped.dtype == dtype
    assert (dropped == 0).float().mean() == pytest.approx(0.1, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9], rel=1e-2)
    dropped.sum().backward()
    torch.testing.assert_close(states.grad, dropped.detach())  # what was dropped gets no gradient
    torch.manual_seed(1)
    torch.testing.assert_close(dropout(states), dropped)
    assert not torch.equal(dropout(states), dropped)
    torch.testing.assert_close(dropout.eval()(states), states)


def test_every_dropout_is_made_cheap_once(model):
    dropouts = sum(isinstance(module, torch.nn.Dropout) for module in model.modules())
    use_fast_dropout(model)
    assert sum(isinstance(module, FastCpuDropout) for module in model.modules()) == dropouts > 0


def test_memory_that_runs_out_is_one_line(capsys):
    def main():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nof which nothing is free")

    with pytest.raises(SystemExit):
        cli.run(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.slow(7)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_that_a_step_frees_is_not_mapped_again_for_the_next_one():
    code = (
        "import resource, torch; from glinerko.training.speed import keep_freed_memory\n"
        "def faults():\n"
        "    torch.ones(2**24).sum()\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(8): torch.ones(2**24).sum()\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(faults()); keep_freed_memory(); print(faults())"
    )
    # In a process of its own: in a fork the memory has been used before.
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    given_back, kept = map(int, shown.split())
    assert kept < given_back / 4
