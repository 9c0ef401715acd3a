"""Inspection: every candidate of the list is judged by what its files say."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import ROOT
from layouts import build, byte_pair, deberta, word_piece

from glinerko.common import DataError
from glinerko.verification.candidates import Kind, Verdict, measure_relative_time, read_candidates
from glinerko.verification.checks import judge_candidate, trial_texts

# name: verdict, what the reason says, parameters in millions (None where there is no config)
CANDIDATES = {
    "team-lucid/deberta-v3-base-korean": (Verdict.SWAP, "DebertaV2Config of width 768", 134.7),
    "microsoft/mdeberta-v3-base": (Verdict.SWAP, "DebertaV2Config of width 768", 278.2),
    "kakaobank/kf-deberta-base": (Verdict.SWAP, "DebertaV2Config of width 768", 185.3),
    "lighthouse/mdeberta-v3-base-kor-further": (Verdict.SWAP, "DebertaV2Config of width 768", 278.2),
    "snunlp/KR-ELECTRA-discriminator": (Verdict.NEW_HEADS, "config class is ElectraConfig", 108.5),
    "klue/roberta-large": (Verdict.NEW_HEADS, "hidden size is 1024, the heads expect 768", 336.7),
    "skt/A.X-Encoder-base": (Verdict.NEW_HEADS, "config class is ModernBertConfig", 149.0),
    "jhu-clsp/mmBERT-base": (Verdict.NEW_HEADS, "config class is ModernBertConfig", 306.9),
    "madatnlp/km-bert": (Verdict.NEW_HEADS, "config class is BertConfig", 98.9),
    "monologg/koelectra-base-v3": (Verdict.NEW_HEADS, "config class is ElectraConfig", 112.3),
    "klue/roberta-base": (Verdict.NEW_HEADS, "config class is RobertaConfig", 110.6),
    "xlm-roberta-base": (Verdict.NEW_HEADS, "config class is XLMRobertaConfig", 278.0),
    "upskyy/kure-v1": (Verdict.NEW_HEADS, "a sentence model, whose token states can be used", 567.8),
    "urchade/gliner_multi": (Verdict.COMPARE, "a complete GLiNER v1 model", None),
    "taeminlee/gliner_ko": (Verdict.COMPARE, "a complete GLiNER v1 model", None),
    "fastino/gliner2-multi-v1": (Verdict.COMPARE, "a complete GLiNER2 model", None),
    "fastino/gliner2.5-small-v1": (Verdict.COMPARE, "or pass it as --base_model", None),
    "fastino/gliner2.5-base-v1": (Verdict.COMPARE, "a complete GLiNER2 model", None),
    "fastino/gliner2.5-multi-v1": (Verdict.COMPARE, "a complete GLiNER2 model", None),
    "microsoft/deberta-v3-base": (Verdict.UNSUITABLE, "cuts Korean into syllables: 100%", 183.8),
}


@pytest.fixture(scope="session")
def texts(sample_rows):
    return trial_texts(sample_rows)


@pytest.fixture
def judge(tmp_path, texts):
    def judge(name: str, change=lambda directory: None):
        directory = build(name, tmp_path / "encoder", texts[0])
        change(directory)
        return judge_candidate(directory, deberta(128100), *texts)

    return judge


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_are_judged_by_what_their_files_say(judge, name):
    verdict, reason, millions = CANDIDATES[name]
    found = judge(name)
    assert found.verdict is verdict, found.reason
    assert reason in found.reason
    if millions is None:
        kind = Kind.GLINER2 if name.startswith("fastino/") else Kind.GLINER_V1
        width = 384 if "small" in name else 768
        assert (found.kind, found.parameters, found.hidden_size, found.layers) == (kind, None, width, 12)
        return
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert found.embedding_parameters >= found.embedding_rows * found.hidden_size
    assert found.tokens < found.embedding_rows
    if name == "upskyy/kure-v1":
        assert (found.kind, found.licence, found.positions) == (Kind.SENTENCE, "mit", 8194)
        assert "hidden size is 1024" in found.reason


def test_the_name_says_nothing(tmp_path, texts):
    directory = build("klue/roberta-base", tmp_path / "deberta-v3-base-korean", texts[0])
    assert judge_candidate(directory, deberta(128100), *texts).verdict is Verdict.NEW_HEADS


def test_characters_and_bytes_are_no_words_whatever_the_architecture(judge, texts):
    def characters(directory):
        word_piece(directory, texts[0], "BertTokenizer", json_file=False, vocab_size=500)

    def single_bytes(directory):
        special = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
        byte_pair(directory, texts[0], special, byte_level=True, vocab_size=300)

    for name, change in (("madatnlp/km-bert", characters), ("skt/A.X-Encoder-base", single_bytes)):
        found = judge(name, change)
        assert found.verdict is Verdict.UNSUITABLE
        assert "cuts Korean into syllables" in found.reason
        shutil.rmtree(found.files.directory)


def test_the_list_has_a_layout_for_each_candidate():
    names = [name.removesuffix("-discriminator") for name, _ in read_candidates(ROOT / "data/encoder_candidates.yaml")]
    assert sorted(names) == sorted(name.removesuffix("-discriminator") for name in CANDIDATES)


def test_remote_code_a_decoder_and_an_unknown_model_are_not_swapped_in(judge, tmp_path):
    def set_config(**settings):
        def change(directory):
            config = json.loads((directory / "config.json").read_text())
            (directory / "config.json").write_text(json.dumps({**config, **settings}))

        return change

    for settings, reason in (
        ({"auto_map": {"AutoModel": "x.Model"}}, "code of its own"),
        ({"model_type": "gpt2"}, "not an encoder: GPT2Config"),
        ({"model_type": "nothing-known"}, "transformers knows no model of model_type 'nothing-known'"),
        ({"vocab_size": 100}, "only 100 embedding rows"),
    ):
        found = judge("klue/roberta-base", set_config(**settings))
        assert found.verdict is Verdict.UNSUITABLE
        assert reason in found.reason
        shutil.rmtree(tmp_path / "encoder")


def test_what_cannot_be_reached_is_skipped_with_the_reason(texts):
    found = judge_candidate("team-lucid/deberta-v3-base-korean", deberta(128100), *texts)
    assert found.verdict is Verdict.SKIPPED
    assert "the Hub cannot be reached" in found.reason


def test_time_is_measured_next_to_the_base_encoder(judge):
    config = deberta(128100)
    config.num_hidden_layers = 1
    found = judge("klue/roberta-base")
    measure_relative_time([found], config, pieces=4)
    assert found.relative_time > 1  # twelve layers next to one


@pytest.mark.parametrize("content", ["id: x\n", "- domain: x\n", "- [\n", None])
def test_malformed_candidates_are_refused_with_the_file(tmp_path, content):
    file = tmp_path / "candidates.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=r"candidates.yaml"):
        read_candidates(file)
