from __future__ import annotations

from conftest import split_and_align

from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.report import report_pieces
from glinerko.model.swap import swap_encoder


def report(model, write_rows, text: str):
    rows, _ = load_rows(write_rows({"text": text, "entities": {"Disease": ["암"]}}))
    return report_pieces(split_and_align(rows, model.processor, label_schema(rows), max_width=12), model.processor)


def test_pieces_are_compared_with_those_of_the_raw_text(model, write_rows):
    # The tiny tokenizer cuts 환자들에게 into 환자 ##들 ##에게; word by word that is 환자, 들, 에 ##게.
    reports = report(model, write_rows, "환자들에게.")
    plain, continued = reports["word by word"], reports["with continuation"]
    assert (plain.characters, plain.pieces, plain.identical, plain.unknown) == (6, 5, 2, 0)
    assert continued.identical_share == 1.0
    assert continued.pieces_per_character == 4 / 6


def test_unknown_pieces_and_words_without_a_continuation_are_counted(model, write_rows):
    reports = report(model, write_rows, "암ж.")
    assert reports["word by word"].unknown_share == 1 / 3
    assert (reports["word by word"].fallbacks, reports["with continuation"].fallbacks) == (0, 1)


def test_unigram_tokenizers_are_compared_too(pair, write_rows):
    reports = report(swap_encoder(pair[0], None)[0], write_rows, "환자에게 암.")
    assert reports["word by word"].identical_share < reports["with continuation"].identical_share <= 1
