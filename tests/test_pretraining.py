from __future__ import annotations

import json
import sys

import pytest
import torch
from conftest import PYTHON, SAMPLE
from datasets import Dataset
from test_scripts import LAUNCH, one_line_error, run
from test_swap import roberta
from transformers import AutoTokenizer, DebertaV2ForMaskedLM, PreTrainedTokenizerFast

from glinerko.common import file_digest
from glinerko.corpus.tokens import load_encoder_tokenizer
from glinerko.model.extractor import load_extractor
from glinerko.model.swap import swap_encoder
from glinerko.training.pretraining import (
    SPECIAL_TOKENS,
    MaskedLanguageModel,
    WholeWordCollator,
    cut_texts,
    encoder_config,
    load_masked_language_model,
    word_piece_tokenizer,
)

PRETRAIN = "scripts/pretrain_encoder.py"
TEXTS = ["당뇨병 환자에게 인슐린을 투여함", "고혈압 환자에게 암로디핀을 투여함", "당뇨병으로 내원함"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=word_piece_tokenizer(TEXTS, 100, 3), **SPECIAL_TOKENS)


def test_vocabulary_has_common_beginnings_and_ends_of_words_and_spells_the_rest(tokenizer):
    assert tokenizer.tokenize("당뇨병 환자에게") == ["당뇨병", "환자에게"]
    assert tokenizer.tokenize("환자을") == ["환자", "##을"]
    assert tokenizer.tokenize("뷁") == [tokenizer.unk_token]  # not in KS X 1001, not in the texts
    assert tokenizer.tokenize("뷔페") == ["뷔", "##페"]
    assert word_piece_tokenizer(TEXTS[::-1], 100, 3).get_vocab() == tokenizer.get_vocab()


def test_whole_words_are_masked_and_by_seed_epoch_and_row_alone(tokenizer):
    rows = cut_texts(Dataset.from_dict({"text": TEXTS}), tokenizer, 16)
    first = rows.select(range(4)).to_list()
    collator = WholeWordCollator(tokenizer, 0.4)
    batch = collator(first)
    masked = batch["labels"] != -100
    assert masked.any()
    assert (batch["input_ids"][masked] == tokenizer.mask_token_id).all()
    for ids, labels, row in zip(batch["input_ids"], batch["labels"], first, strict=True):
        kept = torch.where(labels == -100, ids, labels)[: len(row["input_ids"])].tolist()
        assert kept == row["input_ids"]  # nothing else was touched
        words: dict[int, set] = {}
        word = -1
        previous = None
        for (start, end), label, special in zip(
            row["offset_mapping"], labels.tolist(), row["special_tokens_mask"], strict=False
        ):
            if special:
                assert label == -100
                continue
            word += start != previous
            previous = end
            words.setdefault(word, set()).add(label != -100)
        assert all(len(states) == 1 for states in words.values())
    torch.rand(3)  # the state of torch's generator is of no account
    torch.testing.assert_close(collator(first)["labels"], batch["labels"])
    collator.epoch = 1
    assert not torch.equal(collator(first)["labels"], batch["labels"])


def test_long_texts_are_cut_and_lose_nothing(tokenizer):
    text = " ".join(TEXTS)
    rows = cut_texts(Dataset.from_dict({"text": [text]}), tokenizer, 16)
    assert max(rows["length"]) <= 16
    pieces = [piece for row in rows["input_ids"] for piece in row[1:-1]]
    assert pieces == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_loss_is_that_of_transformers_on_the_masked_pieces(tokenizer):
    torch.manual_seed(0)
    model = DebertaV2ForMaskedLM(encoder_config(32, 1, len(tokenizer))).eval()
    batch = WholeWordCollator(tokenizer, 0.4)(
        cut_texts(Dataset.from_dict({"text": TEXTS}), tokenizer, 16).select(range(4)).to_list()
    )
    loss, right, words = MaskedLanguageModel(model)(**batch)
    assert words == (batch["labels"] != -100).sum()
    torch.testing.assert_close(loss / words, model(**batch).loss)
    assert 0 <= right <= words


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The flags of a run of some seconds, and its directory."""
    directory = tmp_path_factory.mktemp("pretraining") / "run"
    options = {"train_file": SAMPLE / "train.jsonl", "output_dir": directory, "hidden_size": 32}
    options |= {"num_hidden_layers": 1, "num_train_epochs": 2, "checkpointing_steps": 18, "checkpoints_total_limit": 9}
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)], directory


@pytest.mark.slow(14)
def test_a_run_learns_goes_on_bit_for_bit_and_gives_an_encoder_to_swap_in(small, pair, sample_rows):
    flags, directory = small
    result = run(sys.executable, PRETRAIN, *flags)
    assert result.returncode == 0, result.stderr
    history = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[1]["validation_loss"] < history[0]["validation_loss"]
    weights = directory / "encoder" / "model.safetensors"
    uninterrupted = file_digest(weights)
    assert history[0]["step"] == 36
    for checkpoint in ("checkpoint-18", "checkpoint-36"):  # in the midst of an epoch, and at its end
        resumed = run(PYTHON, PRETRAIN, *flags, "--resume_from_checkpoint", directory / checkpoint)
        assert "Going on from" in resumed.stdout
        assert file_digest(weights) == uninterrupted
        assert [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()] == history
    one_line_error(run(PYTHON, PRETRAIN, *flags), "--overwrite_output_dir")
    changed = [*flags, "--resume_from_checkpoint", "latest", "--mlm_probability", "0.3"]
    one_line_error(run(PYTHON, PRETRAIN, *changed), "mlm_probability (0.15 → 0.3)")

    _, report = swap_encoder(pair[0], directory / "encoder")
    assert set(report.kept) == {"span_rep", "classifier", "count_embed", "count_pred"}
    text = sample_rows[0]["text"]
    ours, auto = load_encoder_tokenizer(directory / "encoder"), AutoTokenizer.from_pretrained(directory / "encoder")
    assert ours(text)["input_ids"] == auto(text)["input_ids"]


@pytest.mark.slow(2)
def test_a_published_encoder_is_adapted_on_two_processes(small, pair, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")
    flags = ["--init_from", pair[1], "--train_file", text, "--output_dir", tmp_path / "run", "--num_train_epochs", 2]
    result = run(*LAUNCH, "accelerate_configs/cpu_multi.yaml", PRETRAIN, *flags)
    assert result.returncode == 0, result.stderr
    adapted = load_encoder_tokenizer(tmp_path / "run" / "encoder")
    assert adapted.get_vocab() == load_encoder_tokenizer(pair[1]).get_vocab()
    swap_encoder(pair[0], tmp_path / "run" / "encoder")
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2


def test_the_encoder_of_a_gliner2_goes_on(pair):
    model, tokenizer, new_head = load_masked_language_model(str(pair[0]))
    encoder = load_extractor(pair[0]).encoder.eval()
    ids = torch.tensor([[5, 6, 7]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        states = model.eval().deberta(ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(states, encoder(ids, attention_mask=mask).last_hidden_state)
        logits = model(ids, attention_mask=mask).logits
    assert new_head
    assert tokenizer.mask_token_id < logits.shape[-1]


@pytest.mark.slow(2)
def test_what_cannot_be_trained_is_one_line(pair, tmp_path):
    one_line_error(
        run(PYTHON, PRETRAIN, "--init_from", roberta(tmp_path / "roberta", pair), "--output_dir", tmp_path / "a"),
        "only a DeBERTa-v2",
    )
    (tmp_path / "bad.jsonl").write_text('{"text": "가"}\n{"texts": "나"}\n', encoding="utf-8")
    one_line_error(
        run(PYTHON, PRETRAIN, "--train_file", tmp_path / "bad.jsonl", "--output_dir", tmp_path / "b"),
        "bad.jsonl, line 2",
    )


@pytest.mark.slow(28)
def test_folds_are_trained_scored_and_compared_and_done_stages_are_not_repeated(pair, write_rows, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "- pretrain_encoder: {train_file: ['{text}'], output_dir: '{shared}/encoder', num_train_epochs: 1,\n"
        "    hidden_size: 32, num_hidden_layers: 1}\n"
        "- pretrain_encoder: {train_file: ['{train}', '{text}'], output_dir: '{fold}/encoder', num_train_epochs: 1,\n"
        "    init_from: '{shared}/encoder/encoder'}\n"
        f"- train_gliner2_korean_encoder: {{train_file: '{{train}}', base_model: '{pair[0]}',\n"
        "    korean_encoder: '{fold}/encoder/encoder', num_train_epochs: 1, head_learning_rate: 5.0e-3}\n",
        encoding="utf-8",
    )
    lines = (SAMPLE / "train.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    text = tmp_path / "notes.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")
    flags = ["--train_file", write_rows(*lines, name="train.jsonl"), "--folds", 2, "--output_dir", tmp_path / "cv"]
    command = [PYTHON, "scripts/cross_validate.py", recipe, *flags]
    one_line_error(run(*command), "['{text}'] as --train_file: pass such a file")
    command += ["--text_file", text]
    first = run(*command, "--jobs", 2)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("$ ") == 7  # the first encoder is that of both folds
    assert "best so far" in (tmp_path / "cv" / "fold-1" / "default.log").read_text(encoding="utf-8")
    (tmp_path / "cv" / "fold-0" / "encoder" / "encoder").stat()
    second = run(*command, "--name", "narrow", "--compare", "default", "--", "--max_width", 1)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("$ ") == 4  # the encoders are there
    result = json.loads((tmp_path / "cv" / "narrow.json").read_text())
    assert result["overall"]["gold"] == json.loads((tmp_path / "cv" / "default.json").read_text())["overall"]["gold"]
    assert [entry["model"] for entry in result["comparisons"]] == ["narrow", "default"]
    held_out = [(tmp_path / "cv" / f"fold-{fold}" / "dev.jsonl").read_text().splitlines() for fold in (0, 1)]
    assert sum(map(len, held_out)) == len(lines)
    assert run(*command).stdout.count("$ ") == 0
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("num_train_epochs: 1,", "num_train_epochs: 2,"))
    one_line_error(run(*command), "encoder was made of other files, options or earlier stages")


@pytest.mark.slow(10)
def test_a_recipe_that_cannot_be_read_is_one_line(tmp_path):
    command = [PYTHON, "scripts/cross_validate.py"]
    one_line_error(run(*command, "--train_file", "x.jsonl"), "name a recipe first")
    (tmp_path / "recipe.yaml").write_text("- no_such_script: {a: 1}\n")
    one_line_error(run(*command, tmp_path / "recipe.yaml", "--train_file", "x.jsonl"), "no_such_script")
    missing = ["--train_file", SAMPLE / "train.jsonl", "--text_file", "x.txt"]
    one_line_error(run(*command, "recipes/real_corpus.yaml", *missing), "x.txt: no such file")
    assert run(sys.executable, *command[1:], "--help").returncode == 0
