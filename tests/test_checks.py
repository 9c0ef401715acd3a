"""Every check passes on the tiny pair, and fails when its fault is planted."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from test_swap import edit_json, roberta
from tokenizers import Tokenizer, models
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from glinerko.common import DataError
from glinerko.corpus.reading import load_rows
from glinerko.corpus.report import measure_reach, measure_segmentation
from glinerko.corpus.tokens import load_encoder_tokenizer
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.corpus.words import load_word_splitter
from glinerko.model import extractor
from glinerko.model.extractor import load_extractor
from glinerko.verification import agreement, checks
from glinerko.verification.candidates import EncoderFiles
from glinerko.verification.checks import Status, verify_swap

NAMES = [
    "safe files", "architecture", "hidden size", "tokenizer fidelity", "segmentation", "word-splitter reach",
    "forward pass", "heads kept", "loss and gradients", "parameter groups", "gate", "extraction", "save and reload",
]  # fmt: skip


@pytest.fixture(scope="session")
def rows(sample_rows):
    return sample_rows.select(range(40))


@pytest.fixture(scope="session")
def texts(rows):
    return checks.trial_texts(rows)[0]


@pytest.fixture
def windows(model, rows, schema):
    aligned = model.align(rows.select(range(8)))
    return [window_from_row(row) for row in training_windows(aligned, schema)]


@pytest.fixture
def encoder(pair, tmp_path):
    """A copy of the encoder's directory, to plant faults in."""
    return shutil.copytree(pair[1], tmp_path / "encoder")


def verify(base, encoder, rows, **options) -> dict[str, checks.Check]:
    results = list(verify_swap(base, encoder, rows, **options))
    assert [check.name for check in results] == NAMES  # every check says something, whatever fails
    return {check.name: check for check in results}


def failed(results: dict[str, checks.Check]) -> set[str]:
    return {name for name, check in results.items() if check.status is Status.FAIL}


def test_the_tiny_pair_passes(pair, rows):
    results = verify(*pair, rows)
    assert not failed(results)
    assert results["tokenizer fidelity"].status is Status.WARN  # the wrong class in its tokenizer_config.json
    assert "AutoTokenizer alone gets it wrong (TypeError" in results["tokenizer fidelity"].evidence
    assert results["extraction"].evidence.endswith("reach the full stop it adds")
    assert {name for name, check in results.items() if check.status is not Status.PASS} == {"tokenizer fidelity"}


def test_another_architecture_fails_or_warns_where_new_heads_are_asked_for(pair, rows, tmp_path):
    encoder = roberta(tmp_path / "roberta", pair, hidden_size=64)
    kept = verify(pair[0], encoder, rows)
    assert failed(kept) == {"architecture", "hidden size", "forward pass"}
    assert "--head_init reinit" in kept["architecture"].advice
    assert kept["gate"].status is Status.SKIP
    new = verify(pair[0], encoder, rows, head_init="reinit")
    assert not failed(new)
    assert new["architecture"].status is new["hidden size"].status is Status.WARN
    assert new["heads kept"].status is Status.SKIP


def test_remote_code_is_refused(pair, encoder, rows):
    edit_json(encoder / "config.json", auto_map={"AutoModel": "modeling.Model"})
    results = verify(pair[0], encoder, rows)
    assert {"safe files", "architecture", "forward pass"} <= failed(results)
    assert "code of its own" in results["safe files"].evidence


def test_truncated_weights_are_named(pair, encoder, rows):
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    results = verify(pair[0], encoder, rows)
    assert failed(results) == {"safe files", "forward pass"}
    assert "model.safetensors is damaged" in results["safe files"].evidence


def test_missing_weights_are_named(encoder):
    (encoder / "model.safetensors").unlink()
    assert checks.check_files(encoder).status is Status.FAIL


def test_a_pickle_is_read_but_warned_of(pair, encoder, rows):
    module = AutoModel.from_pretrained(encoder)
    (encoder / "model.safetensors").unlink()
    torch.save(module.state_dict(), encoder / "pytorch_model.bin")
    results = verify(pair[0], encoder, rows)
    assert not failed(results)
    assert results["safe files"].status is Status.WARN


def test_weights_that_are_not_finite_fail_the_forward_pass(pair, encoder, rows, model, texts):
    module = AutoModel.from_pretrained(encoder)
    module.encoder.layer[0].output.dense.bias.data.fill_(float("nan"))
    module.save_pretrained(encoder)
    assert failed(verify(pair[0], encoder, rows)) == {"forward pass"}
    model.encoder = module
    assert checks.check_forward(model, load_extractor(pair[0]), texts).status is Status.FAIL


def test_states_of_another_scale_are_warned_of(pair, model, texts):
    base = load_extractor(pair[0])
    base.encoder.encoder.layer[-1].output.LayerNorm.weight.data.mul_(100)
    assert checks.check_forward(model, base, texts).status is Status.WARN


def test_a_tokenizer_of_the_wrong_model_fails(pair, texts):
    kind = load_encoder_tokenizer(pair[1])
    vocabulary = [(piece, -1.0) for piece, _ in sorted(kind.get_vocab().items(), key=lambda item: item[1])]
    rebuilt = Tokenizer(models.Unigram(vocabulary, unk_id=3))  # what a later transformers may do without a word
    rebuilt.pre_tokenizer = kind.backend_tokenizer.pre_tokenizer
    wrong = PreTrainedTokenizerFast(tokenizer_object=rebuilt, unk_token="[UNK]", pad_token="[PAD]")
    check = checks.check_tokenizer(EncoderFiles(pair[1], tokenizer=wrong), 10_000, texts)
    assert check.status is Status.FAIL
    assert "loaded as Unigram, but tokenizer.json holds WordPiece" in check.evidence


def test_a_tokenizer_that_cuts_otherwise_fails(pair, encoder, texts):
    edit_json(encoder / "tokenizer.json", normalizer={"type": "Lowercase"})
    check = checks.check_tokenizer(EncoderFiles(pair[1], tokenizer=load_encoder_tokenizer(encoder)), 10_000, texts)
    assert check.status is Status.FAIL
    assert "differently than tokenizer.json" in check.evidence


def test_ids_without_a_row_fail(pair, texts):
    check = checks.check_tokenizer(EncoderFiles(pair[1], tokenizer=load_encoder_tokenizer(pair[1])), 100, texts)
    assert check.status is Status.FAIL
    assert "has no row among 100" in check.evidence


def test_a_tokenizer_without_its_special_tokens_fails(pair, texts):
    tokenizer = load_encoder_tokenizer(pair[1])
    tokenizer.cls_token = None
    assert "no cls_token" in checks.check_tokenizer(EncoderFiles(pair[1], tokenizer=tokenizer), 10_000, texts).evidence


def test_syllables_fail_the_segmentation(pair, rows):
    base = AutoTokenizer.from_pretrained(pair[0])
    check = checks.check_segmentation(measure_segmentation(base, *checks.trial_texts(rows)))
    assert check.status is Status.FAIL
    assert "single syllables 100%" in check.evidence


def test_white_space_fails_the_reach(rows):
    reach = measure_reach(rows, {"whitespace": load_word_splitter("whitespace")}, [8, 12])
    assert checks.check_reach(reach, "whitespace", 12).status is Status.FAIL


def test_changed_heads_are_found(pair, model, texts):
    base = load_extractor(pair[0])
    next(model.span_rep.parameters()).data.flatten()[0].add_(1e-3)
    check = checks.check_heads_kept(model, base, "keep", texts)
    assert check.status is Status.FAIL
    assert "span_rep" in check.evidence


def test_heads_mean_something_where_tokenizer_and_states_stay(model, pair, rows, texts, tmp_path):
    model.save_pretrained(tmp_path)
    base = load_extractor(tmp_path)
    stays = verify(tmp_path, pair[1], rows)["heads kept"].evidence  # pair[1] has none of GLiNER2's tokens
    assert re.search(
        r"bit for bit; same tokenizer as the base's; states agree with .*: R² 1\.00 on \d{2,} words$", stays
    )
    assert agreement.agreement_of_states(model, base, texts)[0] == pytest.approx(1)
    with torch.no_grad():
        for parameter in model.encoder.encoder.parameters():  # pre-trained a little further
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    assert 0.1 < agreement.agreement_of_states(model, base, texts)[0] < 0.999


def test_another_tokenizer_and_other_states_are_called_a_start(pair, model, texts):
    base = load_extractor(pair[0])
    evidence = checks.check_heads_kept(model, base, "keep", texts).evidence
    assert "another tokenizer than the base's; states do not agree" in evidence
    assert re.search(r"R² -\d\.\d\d on \d{2,} words; kept heads are a start, not knowledge$", evidence)
    assert agreement.describe_agreement(model, base, [texts[0].split()[0]]).endswith("too few words to compare states")


def test_tokenizers_are_the_same_only_if_they_cut_alike(pair, encoder, texts):
    ours, theirs = load_encoder_tokenizer(pair[1]), load_encoder_tokenizer(encoder)
    theirs.add_special_tokens({"additional_special_tokens": ["[E]"]})
    assert agreement.same_tokenizer(ours, theirs, texts)
    edit_json(encoder / "tokenizer.json", normalizer={"type": "Replace", "pattern": {"String": "는"}, "content": " "})
    assert not agreement.same_tokenizer(ours, load_encoder_tokenizer(encoder), texts)


def test_a_frozen_encoder_fails(model, windows, schema):
    assert checks.check_backward(model, windows[:2], schema).status is Status.PASS
    model.encoder.requires_grad_(False)
    check = checks.check_backward(model, windows[:2], schema)
    assert check.status is Status.FAIL
    assert "encoder." in check.evidence


def test_a_detached_encoder_fails(model, windows, schema):
    model.encoder.register_forward_hook(
        lambda module, inputs, output: type(output)(last_hidden_state=output.last_hidden_state.detach())
    )
    assert checks.check_backward(model, windows[:2], schema).status is Status.FAIL


def test_a_parameter_in_no_group_is_named(model, monkeypatch):
    real = checks.parameter_groups
    monkeypatch.setattr(checks, "parameter_groups", lambda *args, **kwargs: real(*args, **kwargs)[1:])
    assert checks.check_parameter_groups(model).status is Status.FAIL


def test_a_shut_gate_fails(model, windows, schema):
    last = model.count_pred[-1]
    last.bias.data[0] = 1e4
    check = checks.check_gate(model, windows, schema)
    assert check.status is Status.FAIL
    assert check.evidence.startswith("count gate 0% open before training, 0% after")


def test_spans_outside_their_text_fail(model, rows, schema, monkeypatch):
    documents = model.split(rows.select(range(2)))
    assert checks.check_extraction(model, documents, schema).status is Status.PASS
    real = checks.predict_spans

    def shifted(*args, **kwargs):
        predictions = real(*args, **kwargs)
        predictions.candidates[0] = [predictions.candidates[0][0].__class__(0, 10_000, "Drug", 0.5)]
        return predictions

    monkeypatch.setattr(checks, "predict_spans", shifted)
    assert checks.check_extraction(model, documents, schema).status is Status.FAIL


def test_a_model_that_reloads_otherwise_fails(model, monkeypatch):
    real = extractor.load_extractor

    def damaged(directory, **options):
        again = real(directory, **options)
        again.count_pred[-1].bias.data[0] = 1e4
        return again

    monkeypatch.setattr(extractor, "load_extractor", damaged)
    assert checks.check_reload(model).status is Status.FAIL


def test_what_is_no_encoder_fails_and_the_rest_is_skipped(pair, rows, tmp_path):
    (tmp_path / "gliner_config.json").write_text(json.dumps({"model_name": "x"}))
    results = verify(pair[0], tmp_path, rows)
    assert "a complete GLiNER v1 model" in results["architecture"].evidence
    assert results["save and reload"].status is Status.SKIP


@pytest.mark.slow(5)
def test_the_trial_takes_rows_with_entities_and_says_if_there_are_none(pair, sample_rows, write_rows):
    others = [
        {"text": f"글 {n}", "classifications": [{"task": "k", "labels": ["a", "b"], "true_label": "a"}]}
        for n in range(20)
    ]
    own = [{"text": row["text"], "entities": {"Drug": []}} for row in sample_rows.select(range(20))]
    results = verify(*pair, load_rows(write_rows(*others, *own))[0])
    assert "gate" not in failed(results)
    with pytest.raises(DataError, match="no labels of entities"):
        verify(*pair, load_rows(write_rows(*others))[0])


@pytest.mark.slow(3)
def test_reach_on_the_real_corpus(real_corpus):
    splitters = {name: load_word_splitter(name) for name in ("whitespace", "korean")}
    reach = measure_reach(load_rows(real_corpus)[0], splitters, [8, 12])
    assert reach["whitespace"][8] == pytest.approx(0.776, abs=0.005)
    assert reach["whitespace"][12] == pytest.approx(0.781, abs=0.005)
    assert reach["korean"][8] >= 0.964
    assert reach["korean"][12] >= 0.990
