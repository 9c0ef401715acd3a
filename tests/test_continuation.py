from __future__ import annotations

import unicodedata

import pytest
import torch
from conftest import split_and_align
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from glinerko.common import LoadError
from glinerko.corpus.processor import Window
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.tokens import MARK, ContinuationTokenizer
from glinerko.model.extractor import load_extractor
from glinerko.model.prediction import predict_spans
from glinerko.model.swap import swap_encoder


@pytest.fixture
def continued(pair, schema):
    return swap_encoder(*pair, schema=schema, continuation_pieces=True)[0]


def pieces(model, text: str) -> list[list[str]]:
    splitter = model.processor.word_splitter
    return model.processor.word_pieces(text, splitter.splitter.split(text))


def test_a_particle_continues_its_noun(continued):
    assert pieces(continued, "환자에게") == [["환자"], ["##에게"]]


def test_brackets_white_space_and_the_start_of_the_text_begin_anew(continued):
    begins = [word[0] for word in pieces(continued, "암 (암)암") if word[0].strip("#") == "암"]
    assert begins == ["암", "암", "암"]


def test_the_tokenizer_decides_what_continues(continued):
    (five, mg), (ct, photograph) = pieces(continued, "5mg"), pieces(continued, "CT촬영")
    assert (five, mg[0][:2], photograph[0][:2]) == (["5"], "##", "##")
    assert not ct[0].startswith("##")
    assert [word[0].startswith("##") for word in pieces(continued, "COVID-19")] == [False, False, False]


def test_decomposed_text_gives_the_pieces_of_composed_text(continued):
    text = "환자에게 (당뇨병)으로"
    assert pieces(continued, unicodedata.normalize("NFD", text)) == pieces(continued, text)


def test_sentencepiece_words_continue_without_the_mark_of_a_start(pair):
    model, _ = swap_encoder(pair[0], None, continuation_pieces=True)
    assert pieces(model, "환자에게")[1] == ["에", "게"]


def test_what_has_no_continuation_falls_back_and_is_counted(continued):
    continuation = continued.processor.word_splitter.continuation
    assert continuation.tokenize(MARK + "漢") == continued.processor.tokenizer.tokenize("漢")
    assert continuation.fallbacks == {"漢"}


def test_the_user_s_own_private_use_characters_are_no_marks(continued):
    tokens = continued.processor.word_splitter.tokens(f"{MARK}암 암", [(0, 2), (3, 4)])
    assert tokens == ["암", "암"]


def test_off_unless_asked_and_restored_from_the_directory(continued, model, tmp_path):
    assert model.processor.word_splitter.continuation is None
    continued.save_pretrained(tmp_path)
    again = load_extractor(tmp_path)
    assert pieces(again, "환자에게") == pieces(continued, "환자에게") != pieces(model, "환자에게")


def test_windows_prediction_and_gliner2_s_own_extraction_share_one_path(continued, write_rows):
    text = ("환자에게 (당뇨병)으로 인슐린 5mg을 투여한다.\n" * 20).strip()
    rows, _ = load_rows(write_rows({"text": text, "entities": {"Disease": ["당뇨병"], "Drug": ["인슐린"]}}))
    schema = label_schema(rows)
    short = split_and_align(rows, continued.processor, schema, max_width=12, max_length=100, window_overlap=20)
    assert len(short[0]["windows"]) > 3
    whole = split_and_align(rows, continued.processor, schema, max_width=12, max_length=2000)
    (ours,) = predict_spans(continued, whole, schema, floor=0.3).spans
    result = continued.extract_entities(text, list(schema.labels), threshold=0.3, include_spans=True)
    theirs = {(m["start"], m["end"], label) for label, found in result["entities"].items() for m in found}
    assert {span.key for span in ours} == {key for key in theirs if key[1] <= len(text)}


@pytest.mark.parametrize("pooling", ["first", "mean", "max"])
def test_pooled_words_are_those_of_gliner2_s_own_loop(pair, schema, pooling, tmp_path):
    model, _ = swap_encoder(*pair, schema=schema, token_pooling=pooling)
    model.save_pretrained(tmp_path)
    model = load_extractor(tmp_path)
    assert model.processor.token_pooling == model.config.token_pooling == pooling
    texts = ["환자에게 (기면병)으로 프로프라놀롤염산염 5mg을 투여한다.", "암", "프로프라놀롤염산염"]
    windows = [Window(text, model.processor.word_splitter.splitter.split(text), schema.labels) for text in texts]
    assert max(map(len, model.processor.word_pieces(windows[0].text, windows[0].words))) > 2
    batch = model.processor.collate(windows, schema)
    states = model.encoder(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    words, prompts = model.processor.extract_embeddings_from_batch(states, batch.input_ids, batch)
    expected, expected_prompts = model.processor._extract_embeddings_loop(states, batch.input_ids, batch)
    torch.testing.assert_close(words, expected)
    torch.testing.assert_close(prompts, expected_prompts)


@pytest.mark.parametrize(
    ("model", "pre_tokenizer", "reason"),
    [
        (models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), None, "has none"),
        (models.BPE(), pre_tokenizers.Whitespace(), "this one is BPE"),
    ],
)
def test_a_tokenizer_that_cannot_continue_is_refused(model, pre_tokenizer, reason):
    backend = Tokenizer(model)
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    with pytest.raises(LoadError, match=reason):
        ContinuationTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
