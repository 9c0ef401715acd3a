from __future__ import annotations

import errno
import json
import lzma
import multiprocessing
import os
import shutil
import signal
import sys
import unicodedata
from contextlib import nullcontext
from itertools import pairwise
from unittest.mock import Mock

import pytest
import torch
from conftest import PYTHON, SAMPLE
from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError
from layouts import build
from test_scripts import LAUNCH, one_line_error, run
from test_swap import roberta
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, DebertaV2ForMaskedLM, DebertaV2Model, PreTrainedTokenizerFast

from glinerko.common import DataError, file_digest, read_json_lines, write_json_lines
from glinerko.corpus import reading
from glinerko.corpus.reading import read_once
from glinerko.corpus.tokens import load_encoder_tokenizer
from glinerko.model.extractor import load_extractor
from glinerko.model.swap import swap_encoder
from glinerko.training import texts
from glinerko.training.checkpoints import list_checkpoints
from glinerko.training.pretraining import (
    MaskedLanguageModel,
    WholeWordCollator,
    encoder_config,
    load_masked_language_model,
    read_rows,
    save_encoder,
)
from glinerko.training.run import StopRequest
from glinerko.training.speed import score_fewer_positions
from glinerko.training.texts import (
    DUPLICATE,
    HELD_OUT,
    SHARED_WORDS,
    SPECIAL_TOKENS,
    choose_validation,
    load_documents,
    pack_texts,
    rows_digest,
    word_piece_tokenizer,
)

PRETRAIN = "scripts/pretrain_encoder.py"
TEXTS = ["당뇨병 환자에게 인슐린을 투여함", "고혈압 환자에게 암로디핀을 투여함", "당뇨병으로 내원함"] * 4


@pytest.fixture(scope="session")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=word_piece_tokenizer(TEXTS, 100, 3), **SPECIAL_TOKENS)


def test_vocabulary_has_common_beginnings_and_ends_of_words_and_spells_the_rest(tokenizer):
    assert tokenizer.tokenize("당뇨병 환자에게") == ["당뇨병", "환자에게"]
    assert tokenizer.tokenize("환자을") == ["환자", "##을"]
    assert tokenizer.tokenize("뷁") == [tokenizer.unk_token]  # not in KS X 1001, not in the texts
    assert tokenizer.tokenize("뷔페") == ["뷔", "##페"]
    assert word_piece_tokenizer(TEXTS[::-1], 100, 3).get_vocab() == tokenizer.get_vocab()


def documents_of(*texts):
    return read_once("texts", text_rows, Features({"text": Value("string"), "left_out": Value("string")}), texts=texts)


def text_rows(texts, **digests):
    return ({"text": text, "left_out": "" if text else DUPLICATE} for text in texts)


def test_rows_are_full_and_lose_nothing(tokenizer):
    rows = pack_texts(documents_of(*TEXTS), tokenizer, 16)
    ids, words = rows["input_ids"][:], rows["words"][:]
    assert [len(row) for row in ids[:-1]] == [16] * (len(ids) - 1)
    assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in ids)
    separator = [tokenizer.sep_token_id]
    whole = [piece for text in TEXTS for piece in tokenizer(text, add_special_tokens=False)["input_ids"] + separator]
    assert [piece for row in ids for piece in row[1:-1]] == whole[:-1]
    for row, numbers in zip(ids, words, strict=True):
        assert [number < 0 for number in numbers] == [piece in tokenizer.all_special_ids for piece in row]
        continued = [piece.startswith("##") for piece in tokenizer.convert_ids_to_tokens(row)]
        own = [(number, more) for number, more in zip(numbers, continued, strict=True) if number >= 0]
        assert own[0][0] == 0
        assert all(after - before == 1 - more for (before, _), (after, more) in pairwise(own))


def test_documents_left_out_and_those_to_measure_are_in_no_row(tokenizer):
    documents = documents_of("당뇨병", "", "고혈압", "환자")
    drawn = choose_validation(documents, 0.3, 9, seed=1)
    assert len(drawn) == 1
    kept = [text for index, text in enumerate(documents["text"]) if text and index not in drawn]
    assert pack_texts(documents, tokenizer, 16, drawn)["input_ids"][:] == [
        tokenizer(f" {tokenizer.sep_token} ".join(kept))["input_ids"]
    ]
    assert len(choose_validation(documents, 0.9, 1, seed=1)) == 1
    with pytest.raises(DataError, match="leaves none to train on"):
        choose_validation(documents, 0.9, 9, seed=1)


def test_a_document_is_read_once_and_none_that_shares_words_with_a_held_out_one(tmp_path):
    run_of_words = " ".join(f"낱말{index}" for index in range(SHARED_WORDS))
    held_out = tmp_path / "held-out.jsonl"
    write_json_lines(held_out, [{"text": f"앞 {run_of_words} 뒤"}, {"text": "짧은 문서"}])
    first, second = tmp_path / "a.txt.xz", tmp_path / "b.jsonl"
    first.write_bytes(lzma.compress("당뇨병 환자\n짧은  문서\n짧은 문서 하나\n".encode()))
    more = ["당뇨병환자", f"다른 {run_of_words} 말", run_of_words.rsplit(" ", 1)[0]]
    write_json_lines(second, ({"text": text} for text in more))
    documents, left_out = load_documents([str(first), str(second)], held_out_files=[str(held_out)])
    assert left_out == {DUPLICATE: 1, HELD_OUT: 2}
    assert documents["left_out"][:] == ["", HELD_OUT, "", DUPLICATE, HELD_OUT, ""]
    assert [text for text in documents["text"] if text] == ["당뇨병 환자", "짧은 문서 하나", more[2]]
    plain = tmp_path / "held-out.txt"
    plain.write_text("짧은 문서\n당뇨병 환자", encoding="utf-8")
    assert load_documents([str(first), str(second)], held_out_files=[str(plain)])[1] == {HELD_OUT: 3}
    with pytest.raises(DataError, match="no text is left"):
        load_documents([str(plain)], held_out_files=[str(plain)])
    write_json_lines(held_out, [{"text": "첫 줄 글\n둘째 줄 글"}, {"text": run_of_words}])
    written_otherwise = [unicodedata.normalize("NFD", run_of_words), run_of_words.replace(" ", ", "), "둘째 줄: 글."]
    plain.write_text("\n".join([*written_otherwise, "둘째 줄"]), encoding="utf-8")
    documents, left_out = load_documents([str(plain)], held_out_files=[str(held_out)])
    assert (documents["text"][:], left_out) == (["", "", "", "둘째 줄"], {HELD_OUT: 3})
    for missing, told in (("c.txt", "c.txt: no such file"), ("", "a directory; name its files")):
        with pytest.raises(DataError, match=told):
            load_documents([str(tmp_path / missing)])
    second.write_text('{"text": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"b.jsonl, line 1"):
        load_documents([str(first), str(second)])


def test_a_long_document_is_cut_at_white_space_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "LONGEST_PART", 10)
    text = "가나다 라마바 사아자 " + "차" * 25 + " 카타"
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    parts = load_documents([str(tmp_path / "long.txt")])[0]["text"][:]
    assert "".join(parts) == text
    assert parts[:2] == ["가나다 라마바", " 사아자"]
    assert max(map(len, parts)) == 10


def test_what_other_code_has_read_is_read_again(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("당뇨병 환자", encoding="utf-8")
    first = load_documents([str(file)])[0].cache_files
    assert load_documents([str(file)])[0].cache_files == first
    monkeypatch.setattr(reading, "code_digest", lambda: "changed")
    assert load_documents([str(file)])[0].cache_files != first


def test_a_cache_without_room_and_a_process_that_ends_are_named(tokenizer, monkeypatch):
    documents = documents_of("당뇨병")
    for error, told in (
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device .* GB are free"),
        (RuntimeError("One of the subprocesses has abruptly died"), "a process that tokenizes ended"),
    ):
        monkeypatch.setattr(Dataset, "map", Mock(side_effect=error))
        with pytest.raises(DataError, match=told):
            pack_texts(documents, tokenizer, 16)
    full = DatasetGenerationError()
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Dataset, "from_generator", Mock(side_effect=full))
    with pytest.raises(DataError, match=r"No space left on device .* GB are free"):
        documents_of("고혈압")


def test_processes_that_tokenize_end_at_once_and_those_that_make_batches_do_not():
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    try:
        for patient, status in ((False, -signal.SIGTERM), (True, 0)):
            stop.patient = patient
            child = multiprocessing.get_context("fork").Process(target=signal.raise_signal, args=(signal.SIGTERM,))
            child.start()
            child.join()
            assert child.exitcode == status
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_texts_of_a_data_set_are_read(tmp_path):
    (tmp_path / "set").mkdir()
    Dataset.from_dict({"text": TEXTS[:3]}).to_parquet(tmp_path / "set" / "train.parquet")
    documents, left_out = load_documents([], str(tmp_path / "set"))
    assert (documents["text"][:], left_out) == (TEXTS[:3], {})
    for texts_of_a_set, told in ((["다른", "글"], None), (["글", None], "row 1: expected a text"), ([" "], "no text")):
        Dataset.from_dict({"text": texts_of_a_set}).to_parquet(tmp_path / "set" / "train.parquet")
        with pytest.raises(DataError, match=told) if told else nullcontext():
            assert load_documents([], str(tmp_path / "set"))[0]["text"][:] == texts_of_a_set
    with pytest.raises(DataError, match="data set"):
        load_documents([], str(tmp_path / "none"))


def test_rows_are_on_disk_and_made_once(tokenizer):
    first, second = (pack_texts(documents_of(*TEXTS), tokenizer, 16) for _ in range(2))
    assert first.cache_files == second.cache_files != []  # rows in memory would have no file


def test_rows_do_not_depend_on_the_number_of_cores_and_slices(tokenizer, monkeypatch):
    documents = documents_of(*(f"{text} {number}" for number in range(30) for text in TEXTS[:3]))
    monkeypatch.setattr(texts, "BLOCK", 2)
    rows = []
    for cores, size in ((1, 100), (2, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores), raising=False)
        monkeypatch.setattr(texts, "SLICE", size)
        documents._fingerprint = f"cores-{cores}"
        rows.append(pack_texts(documents, tokenizer, 16))
    assert rows_digest(rows[0]) == rows_digest(rows[1])
    assert rows[0][:] == rows[1][:]


def test_a_text_that_names_special_tokens_is_whole(tokenizer):
    (row,) = pack_texts(documents_of("환자 [PAD] 당뇨병 [SEP] 뷔페"), tokenizer, 32).to_list()
    assert row["words"] == [-1, 0, -1, 2, -1, 4, 4, -1]
    batch = WholeWordCollator(tokenizer, 0.5)([row])
    assert (batch["documents"] > 0).all()


def test_a_word_that_no_tokenizer_cuts_is_not_counted():
    vocabulary = word_piece_tokenizer(["뷁" * 101, "뷁" * 100], 1000, 1).get_vocab()
    assert "뷁" * 100 in vocabulary
    assert "뷁" * 101 not in vocabulary


def test_words_beyond_the_limit_are_forgotten_and_their_characters_kept(monkeypatch):
    monkeypatch.setattr(texts, "COUNTED_WORDS", 3)
    words = [*TEXTS, *(f"{a}{b}" for a in "뙧뙨" for b in "뙩뙪뙫뙬")]
    vocabulary = word_piece_tokenizer(words, 100, 3).get_vocab()
    assert "환자에게" in vocabulary
    assert all(character in vocabulary for character in "뙧뙨뙩뙪뙫뙬")


def test_whole_words_are_masked_and_by_seed_epoch_and_rows_alone(tokenizer):
    rows = pack_texts(documents_of(*TEXTS), tokenizer, 16).to_list()
    collator = WholeWordCollator(tokenizer, 0.4)
    batch = collator(rows)
    masked = batch["labels"] != -100
    assert masked.any()
    assert (batch["input_ids"][masked] == tokenizer.mask_token_id).all()
    for index, row in enumerate(rows):
        size = len(row["input_ids"])
        original = torch.where(masked, batch["labels"], batch["input_ids"])[index]
        assert original[:size].tolist() == row["input_ids"]  # nothing else was touched
        assert (original[size:] == tokenizer.pad_token_id).all()
        states: dict[int, set] = {}
        for number, hidden in zip(row["words"], masked[index].tolist(), strict=False):
            states.setdefault(number, set()).add(hidden)
        assert states.pop(-1) == {False}
        assert all(len(each) == 1 for each in states.values())
    numbers = batch["documents"][0].tolist()
    assert numbers == [1 + row.count(tokenizer.sep_token_id) for row in ([0, *rows[0]["input_ids"]][:end] for end in
                       range(1, 17))]  # fmt: skip
    assert batch["documents"][-1, len(rows[-1]["input_ids"]) :].eq(0).all()
    torch.rand(3)  # the state of torch's generator is of no account
    torch.testing.assert_close(collator(rows)["labels"], batch["labels"])
    collator.epoch = 1
    assert not torch.equal(collator(rows)["labels"], batch["labels"])


def test_loss_is_that_of_transformers_on_the_masked_pieces(tokenizer):
    torch.manual_seed(0)
    model = DebertaV2ForMaskedLM(encoder_config(32, 1, len(tokenizer))).eval()
    batch = WholeWordCollator(tokenizer, 0.4)(pack_texts(documents_of(*TEXTS), tokenizer, 16).to_list())
    loss, right, words = MaskedLanguageModel(model)(**batch)
    mask = (batch["documents"] > 0).long()
    logits = model(batch["input_ids"], attention_mask=mask, labels=batch["labels"])
    masked = batch["labels"] != -100
    assert words == masked.sum()
    torch.testing.assert_close(loss / words, logits.loss)
    assert right == (logits.logits.argmax(-1) == batch["labels"])[masked].sum()


def test_documents_of_a_row_are_kept_apart_where_the_attention_can(tokenizer):
    torch.manual_seed(0)
    encoder = DebertaV2ForMaskedLM(encoder_config(32, 2, len(tokenizer))).deberta.eval()
    (row,) = pack_texts(documents_of(*TEXTS[:2]), tokenizer, 64).to_list()
    batch = WholeWordCollator(tokenizer, 0.01)([row])
    ids, documents = batch["input_ids"], batch["documents"]
    first = int((documents == 1).sum())
    alone = encoder(ids[:, :first], attention_mask=torch.ones(1, first, dtype=torch.long)).last_hidden_state
    apart, together = (read_rows(encoder, ids, documents, separate) for separate in (True, False))
    torch.testing.assert_close(apart[:, :first], alone)
    assert not torch.allclose(together[:, :first], alone, atol=1e-3)


@pytest.mark.parametrize(("longest", "fewer"), [(40, True), (300, True), (600, False)])
@pytest.mark.parametrize("shared_keys", [True, False])
def test_positions_that_no_row_has_are_not_scored_and_nothing_changes(longest, fewer, shared_keys):
    torch.manual_seed(0)
    config = encoder_config(32, 2, 99)
    config.share_att_key = shared_keys
    encoder = DebertaV2Model(config).eval()
    ids = torch.randint(9, 99, (2, longest))
    target = torch.randn(2, longest, 32)

    def read():
        encoder.zero_grad()
        with FlopCounterMode(display=False) as operations:
            states = encoder(ids).last_hidden_state
            (states * target).mean().backward()
        gradients = [parameter.grad.clone() for parameter in encoder.parameters()]
        return operations.get_total_flops(), [states.detach(), *gradients]

    all_positions, wanted = read()
    score_fewer_positions(encoder, longest)
    own_positions, found = read()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert (own_positions < all_positions) == fewer


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The flags of a run of some seconds, and its directory."""
    directory = tmp_path_factory.mktemp("pretraining") / "run"
    options = {"train_file": SAMPLE / "train.jsonl", "output_dir": directory, "hidden_size": 32}
    options |= {"num_hidden_layers": 1, "num_train_epochs": 2, "checkpointing_steps": 15, "checkpoints_total_limit": 9}
    options |= {"max_length": 64, "per_device_train_batch_size": 4}
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
    assert history[0]["step"] == 30
    for checkpoint in ("checkpoint-15", "checkpoint-30"):  # in the midst of an epoch, and at its end
        older = [*flags, "--resume_from_checkpoint", directory / checkpoint]
        newer = [path for path in list_checkpoints(directory) if path.name > checkpoint]
        if newer:
            one_line_error(run(PYTHON, PRETRAIN, *older), f"{newer[-1].name} is newer than", "remove the newer ones")
        for path in newer:
            shutil.rmtree(path)
        resumed = run(PYTHON, PRETRAIN, *older)
        assert "Going on from" in resumed.stdout
        assert file_digest(weights) == uninterrupted
        assert [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()] == history
    one_line_error(run(PYTHON, PRETRAIN, *flags), "--overwrite_output_dir")
    changed = [*flags, "--resume_from_checkpoint", "latest", "--mlm_probability", "0.3"]
    one_line_error(run(PYTHON, PRETRAIN, *changed), "mlm_probability (0.15 → 0.3)")
    again = [*flags, "--resume_from_checkpoint", "latest"]
    one_line_error(run(PYTHON, PRETRAIN, *again, ACCELERATE_MIXED_PRECISION="bf16"), "precision (no → bf16)")

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


@pytest.mark.parametrize(
    "name",
    ["team-lucid/deberta-v3-base-korean", "kakaobank/kf-deberta-base", "lighthouse/mdeberta-v3-base-kor-further"],
)
def test_the_layouts_of_the_candidates_go_on_with_their_own_vocabulary(name, tmp_path):
    published = build(name, tmp_path / "published", [*TEXTS, "가나다라 마바사 " * 9])
    before = load_encoder_tokenizer(published)
    DebertaV2ForMaskedLM(encoder_config(32, 1, len(before) + 7)).save_pretrained(published)
    model, tokenizer, new_head = load_masked_language_model(str(published))
    assert not new_head
    text = "당뇨병 환자에게 인슐린을"
    assert tokenizer(text)["input_ids"] == before(text)["input_ids"]
    rows = pack_texts(documents_of(*TEXTS), tokenizer, 16)
    end = [before.sep_token_id]
    whole = [piece for text in TEXTS for piece in before(text, add_special_tokens=False)["input_ids"] + end]
    assert [piece for row in rows["input_ids"] for piece in row[1:-1]] == whole[:-1]
    loss, _, masked = MaskedLanguageModel(model)(**WholeWordCollator(tokenizer, 0.4)(rows.to_list()))
    (loss / masked).backward()
    assert all(p.grad.isfinite().all() for p in model.deberta.parameters() if p.grad is not None)
    save_encoder(model, tokenizer, tmp_path / "adapted")
    after = load_encoder_tokenizer(tmp_path / "adapted")
    assert {piece: number for piece, number in after.get_vocab().items() if piece in before.get_vocab()} == (
        before.get_vocab()
    )
    assert load_masked_language_model(str(tmp_path / "adapted"))[0].num_parameters() == model.num_parameters()


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


@pytest.mark.slow(20)
def test_sharded_by_fsdp_it_trains_and_saves_as_one_process_does(tmp_path):
    """Under accelerate_configs/fsdp.yaml, on two CPU processes that evaluate unequal numbers of batches."""
    lines = (SAMPLE / "train.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    flags = ["--train_file", tmp_path / "texts.jsonl", "--hidden_size", 32, "--num_hidden_layers", 2]
    flags += ["--max_length", 32, "--per_device_train_batch_size", 4, "--num_train_epochs", 2]
    flags += ["--attention_backend", "eager", "--attention_dropout", 0, "--validation_split", 0.15]
    histories, encoders = [], []
    for name, runner in (("whole", []), ("sharded", ["tests/sharded_on_cpu.py", "accelerate_configs/fsdp.yaml"])):
        command = [*LAUNCH, "accelerate_configs/cpu_multi.yaml", *runner, "tests/without_chance.py", PRETRAIN, *flags]
        result = run(*command, "--output_dir", tmp_path / name)
        assert result.returncode == 0, result.stderr
        histories.append(read_json_lines(tmp_path / name / "history.jsonl"))
        encoders.append(load_masked_language_model(str(tmp_path / name / "encoder"))[0].state_dict())
    for one, other in zip(*histories, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    for key, tensor in encoders[0].items():
        torch.testing.assert_close(encoders[1][key], tensor, rtol=1e-3, atol=1e-4)


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
    text.write_text("\n".join([*TEXTS, json.loads(lines[3])["text"]]), encoding="utf-8")
    flags = ["--train_file", write_rows(*lines, name="train.jsonl"), "--folds", 2, "--output_dir", tmp_path / "cv"]
    command = [PYTHON, "scripts/cross_validate.py", recipe, *flags]
    one_line_error(run(*command), "['{text}'] as --train_file: pass such a file")
    command += ["--text_file", text]
    first = run(*command, "--jobs", 2)
    assert first.returncode == 0, first.stderr
    assert "\n1 of 13 raw texts have words of the labelled documents: left out\n" in f"\n{first.stdout}"
    assert first.stdout.count("$ ") == 7  # the first encoder is that of both folds
    assert "best so far" in (tmp_path / "cv" / "fold-1" / "default.log").read_text(encoding="utf-8")
    (tmp_path / "cv" / "fold-0" / "encoder" / "encoder").stat()
    second = run(*command, "--name", "narrow", "--compare", "default", "--average", "--", "--max_width", 1)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("$ ") == 4  # the encoders are there
    result = json.loads((tmp_path / "cv" / "narrow.json").read_text())
    assert result["overall"]["gold"] == json.loads((tmp_path / "cv" / "default.json").read_text())["overall"]["gold"]
    for compared in (result["comparisons"], result["unseen"]):
        assert [entry["model"] for entry in compared] == ["narrow", "default", "mean of these 2"]
    assert result["unseen"][0]["gold"] < result["overall"]["gold"]
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
    misspelt = [*missing, "--", "--num_epochs", 3]
    one_line_error(
        run(*command, "recipes/real_corpus.yaml", *misspelt),
        "train_gliner2_korean_encoder: there is no option --num_epochs",
    )
    twice = ("recipes/related_labels.yaml", *missing, "--related_file", "y.jsonl", "--name", "encoder")
    one_line_error(run(*command, *twice), "would write to {fold}/encoder, as an earlier stage does")
    assert run(sys.executable, *command[1:], "--help").returncode == 0
