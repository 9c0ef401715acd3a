from __future__ import annotations

import errno
import json
import shutil

import pytest
import torch
from gliner2 import AutoExtractor
from gliner2.processor import SchemaTransformer
from httpx2 import ConnectTimeout
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, DebertaV2Config, DebertaV2Model, RobertaConfig, RobertaModel

from glinerko.common import GlinerkoError, LoadError, SwapError
from glinerko.corpus.processor import MAX_WORD_LENGTH
from glinerko.corpus.tokens import load_encoder_tokenizer
from glinerko.corpus.words import KoreanWordSplitter
from glinerko.hub import fetch
from glinerko.model.extractor import load_extractor
from glinerko.model.settings import Settings
from glinerko.model.swap import SwapArguments, swap_encoder, weight_checksum

HEADS = ("span_rep", "classifier", "count_pred", "count_embed")


@pytest.fixture
def encoder_copy(pair, tmp_path):
    return shutil.copytree(pair[1], tmp_path / "encoder")


def edit_json(path, **changes) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def test_heads_are_kept_bit_for_bit(pair, schema):
    base = load_extractor(pair[0])
    model, report = swap_encoder(*pair, schema=schema)
    assert set(report.kept) == set(HEADS)
    for head in HEADS:
        before, after = getattr(base, head).state_dict(), getattr(model, head).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert report.kept[head] == weight_checksum(getattr(base, head))


def test_encoder_weights_arrive_and_only_special_rows_are_new(pair):
    weights = load_file(pair[1] / "model.safetensors")
    model, report = swap_encoder(*pair)
    rows = model.encoder.get_input_embeddings().weight
    tokens = len(load_encoder_tokenizer(pair[1]))
    original = weights["deberta.embeddings.word_embeddings.weight"]
    assert original.shape[0] > tokens + 10  # the trap: a resize adds no row
    assert torch.equal(rows[:tokens], original[:tokens])
    assert rows.shape[0] == tokens + 10
    new = rows[tokens:]
    assert not any(torch.equal(new[index], original[tokens + index]) for index in range(10))
    assert len({tuple(row.tolist()) for row in new}) == 10
    assert 0.5 < new.std() / original[:tokens].std() < 2
    assert sum(name.startswith("[") for name in report.initialised) == 10
    layer = "encoder.layer.0.attention.self.query_proj.weight"
    assert torch.equal(model.encoder.state_dict()[layer], weights[f"deberta.{layer}"])


@pytest.fixture
def relatives(pair, tmp_path):
    """(base model, encoder) that were trained on from the encoder of ``pair``."""
    model, _ = swap_encoder(*pair, seed=7)
    encoder = AutoModel.from_pretrained(pair[1])
    with torch.no_grad():
        for weight in (*model.encoder.parameters(), *encoder.parameters()):
            weight += 0.01 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "base")
    encoder.save_pretrained(shutil.copytree(pair[1], tmp_path / "child"))
    return tmp_path / "base", tmp_path / "child"


def test_what_the_base_has_learned_since_the_common_ancestor_is_added(pair, relatives):
    model, report = swap_encoder(*relatives, common_ancestor=str(pair[1]))
    plain, _ = swap_encoder(*relatives)
    base, ancestor = load_extractor(relatives[0]).encoder, AutoModel.from_pretrained(pair[1])
    embeddings, tokens = "embeddings.word_embeddings.weight", len(load_encoder_tokenizer(pair[1]))
    new, child, learned, start = (
        dict(each.named_parameters()) for each in (model.encoder, plain.encoder, base, ancestor)
    )
    assert torch.equal(new[embeddings][tokens:], learned[embeddings][tokens:])
    for name, weight in new.items():
        rows = slice(tokens if name == embeddings else None)
        expected = child[name][rows] + learned[name][rows] - start[name][rows]
        assert torch.allclose(weight[rows], expected, atol=1e-6), name
        assert not torch.allclose(weight[rows], child[name][rows], atol=1e-6), name
    assert report.common_ancestor == pair[1].name
    assert set(report.initialised.values()) == {"with the base model's rows"}
    assert set(report.kept) == set(HEADS)


def test_special_tokens_that_only_the_ancestor_lacks_get_the_rows_of_the_base(pair, relatives):
    tokenizer = load_encoder_tokenizer(relatives[1])
    tokenizer.add_special_tokens({"additional_special_tokens": SchemaTransformer.SPECIAL_TOKENS})
    tokenizer.save_pretrained(relatives[1])
    model, report = swap_encoder(*relatives, common_ancestor=str(pair[1]))
    rows, base = (each.get_input_embeddings().weight for each in (model.encoder, load_extractor(relatives[0]).encoder))
    assert torch.equal(rows[-10:], base[len(rows) - 10 : len(rows)])
    assert len(report.initialised) == 10


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no swap", "--common_ancestor is for a swap"),
        ("another tokenizer", "the base model has other tokens"),
        ("another size", "the base model's encoder has weights of other shapes"),
        ("the encoder itself", "the encoder has the same weights, and has learned nothing since"),
        ("a GLiNER2", "--common_ancestor .*base"),
    ],
)
def test_what_is_no_common_ancestor_is_refused(pair, relatives, tmp_path, case, message):
    base, encoder, ancestor = *relatives, shutil.copytree(pair[1], tmp_path / "ancestor")
    if case == "no swap":
        encoder = None
    elif case == "another tokenizer":
        base = pair[0]
    elif case == "another size":
        config = DebertaV2Config.from_pretrained(ancestor)
        config.intermediate_size *= 2
        DebertaV2Model(config).save_pretrained(ancestor)
    elif case == "the encoder itself":
        ancestor = encoder
    else:
        ancestor = base
    with pytest.raises(SwapError, match=message) as raised:
        swap_encoder(base, encoder, common_ancestor=str(ancestor))
    assert "\n" not in str(raised.value)


def test_a_common_ancestor_without_a_swap_is_refused_with_the_options():
    with pytest.raises(SwapError, match="is for a swap"):
        SwapArguments(korean_encoder="none", common_ancestor="microsoft/mdeberta-v3-base")


def test_special_rows_are_seeded(pair):
    first, second, third = (
        swap_encoder(*pair, seed=seed)[0].encoder.get_input_embeddings().weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_tokenizer_is_what_its_file_says_and_not_what_its_class_says(pair):
    with pytest.raises(TypeError):  # the trap is real: transformers 5 rebuilds the class as Unigram
        AutoTokenizer.from_pretrained(pair[1])
    tokenizer = load_encoder_tokenizer(pair[1])
    assert type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece"
    assert tokenizer.tokenize("환자들에게") == ["환자", "##들", "##에게"]


def test_base_tokenizer_cuts_korean_into_syllables(pair):
    pieces = [piece.strip("▁") for piece in load_extractor(pair[0]).processor.tokenizer.tokenize("환자에게 인슐린을")]
    assert [piece for piece in pieces if piece] == list("환자에게인슐린을")


def test_reload_restores_everything_by_us_and_by_gliner2(model, tmp_path):
    model.configure(threshold=0.35, window={"max_length": 256, "window_overlap": 32})
    model.save_pretrained(tmp_path)
    ours = load_extractor(tmp_path)
    theirs = AutoExtractor.from_pretrained(str(tmp_path), word_splitter=KoreanWordSplitter())
    for other in (ours, theirs):
        assert weight_checksum(other) == weight_checksum(model)
        assert other.max_width == other.config.max_width == other.config.span_head["max_width"] == 12
        assert other.span_rep.span_rep_layer.max_width == 12
        assert other.processor.tokenizer.tokenize("환자에게 [P]") == model.processor.tokenizer.tokenize("환자에게 [P]")
    assert isinstance(ours.processor.word_splitter.splitter, KoreanWordSplitter)
    assert (ours.threshold, ours.label_schema) == (0.35, model.label_schema)
    assert list(ours.label_schema.descriptions) == list(ours.label_schema.labels)  # the prompt's order is kept
    assert ours.window_limits == {"max_length": 256, "window_overlap": 32}
    assert ours.config.model_name == "korean-encoder"  # the name, never the local path
    assert str(tmp_path.parent) not in (tmp_path / "config.json").read_text()


def test_user_dictionary_is_saved_with_the_model(pair, schema, tmp_path):
    (tmp_path / "words.tsv").write_text("자누비아\n", encoding="utf-8")
    model, _ = swap_encoder(*pair, schema=schema, user_dictionary=tmp_path / "words.tsv")
    model.save_pretrained(tmp_path / "saved")
    again = load_extractor(tmp_path / "saved")
    text = "자누비아도 투여"
    words = again.processor.word_splitter.splitter.split(text)
    assert words == model.processor.word_splitter.splitter.split(text) != KoreanWordSplitter().split(text)
    (tmp_path / "saved" / "user_dictionary.tsv").unlink()
    with pytest.raises(GlinerkoError, match=r"user_dictionary.tsv: cannot be read"):
        load_extractor(tmp_path / "saved")


def test_saved_tokenizer_config_names_a_class_of_transformers_4_and_5(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(config.get("extra_special_tokens"), list)


def roberta(directory, pair, hidden_size: int = 32):
    config = RobertaConfig(
        hidden_size=hidden_size, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=7000
    )
    RobertaModel(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pair[1] / name, directory)
    return directory


def test_other_architecture_is_refused_with_the_reason_and_the_choice(pair, tmp_path):
    encoder = roberta(tmp_path / "roberta", pair, hidden_size=64)
    with pytest.raises(SwapError) as caught:
        swap_encoder(pair[0], encoder)
    message = str(caught.value)
    assert "RobertaConfig" in message
    assert "hidden size is 64, the heads expect 32" in message
    assert "--head_init reinit" in message


def test_reinitialised_heads_take_the_width_of_any_encoder(pair, tmp_path, schema):
    encoder = roberta(tmp_path / "roberta", pair, hidden_size=64)
    model, report = swap_encoder(pair[0], encoder, head_init="reinit", schema=schema)
    assert not report.kept
    assert set(HEADS) <= set(report.initialised)
    assert model.span_rep.span_rep_layer.project_start[0].in_features == 64
    model.save_pretrained(tmp_path / "saved")
    assert weight_checksum(load_extractor(tmp_path / "saved")) == weight_checksum(model)


def test_no_swap_keeps_encoder_and_tokenizer(pair):
    base = load_extractor(pair[0])
    model, report = swap_encoder(pair[0], None, max_width=10)
    assert weight_checksum(model.encoder) == weight_checksum(base.encoder)
    assert model.processor.tokenizer.get_vocab() == base.processor.tokenizer.get_vocab()
    assert report.changed == {"max_width": ("8", "10"), "word_splitter": ("whitespace", "korean")}


def test_a_base_of_an_unknown_architecture_is_refused(pair, tmp_path):
    base = shutil.copytree(pair[0], tmp_path / "base")
    edit_json(base / "config.json", architecture="pyramid")
    with pytest.raises(LoadError, match=r"unknown architecture 'pyramid'; known are span, boundary"):
        swap_encoder(base, pair[1])


def test_encoder_with_missing_weights_is_refused(pair, encoder_copy):
    weights = load_file(encoder_copy / "model.safetensors")
    weights.pop("deberta.encoder.layer.0.attention.self.query_proj.weight")
    save_file(weights, encoder_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"1 weights are missing.*query_proj"):
        swap_encoder(pair[0], encoder_copy)


def test_truncated_weights_are_refused(pair, encoder_copy, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    for directory in (encoder_copy, tmp_path / "model"):
        weights = (directory / "model.safetensors").read_bytes()
        (directory / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(LoadError, match="weights cannot be loaded"):
        swap_encoder(pair[0], encoder_copy)
    with pytest.raises(LoadError, match="weights cannot be loaded"):
        load_extractor(tmp_path / "model")


def test_encoder_that_gives_nan_is_refused(pair, encoder_copy):
    weights = load_file(encoder_copy / "model.safetensors")
    weights["deberta.embeddings.LayerNorm.weight"].fill_(float("nan"))
    save_file(weights, encoder_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SwapError, match="no finite state"):
        swap_encoder(pair[0], encoder_copy)


def test_remote_code_is_refused(pair, encoder_copy):
    edit_json(encoder_copy / "config.json", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(LoadError, match="auto_map"):
        swap_encoder(pair[0], encoder_copy)


def test_gliner_v1_model_is_named_for_what_it_is(pair, tmp_path):
    (tmp_path / "gliner_config.json").write_text("{}")
    with pytest.raises(LoadError, match="GLiNER v1"):
        swap_encoder(pair[0], tmp_path)


def test_encoder_given_as_base_model_is_refused(pair):
    with pytest.raises(LoadError, match="not a GLiNER2 model"):
        load_extractor(pair[1])
    assert DebertaV2Config.from_pretrained(pair[1]).model_type == "deberta-v2"


def test_pickled_weights_are_not_read(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LoadError, match=r"no model\.safetensors"):
        load_extractor(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./missing", "no such directory"),
        ("user/never-downloaded", "Hub cannot be reached"),
        ("a b", "neither a directory"),
    ],
)
def test_what_cannot_be_found_is_one_line(name, message):
    with pytest.raises(LoadError, match=message) as caught:
        fetch(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "blobs/1"), "user/model: blobs/1: No space left on device"),
        (LocalEntryNotFoundError("no connection"), "the Hub cannot be reached"),
        (ConnectTimeout("timed out"), "the Hub cannot be reached"),
    ],
)
def test_why_a_download_failed_is_told(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("glinerko.hub.snapshot_download", fail)
    with pytest.raises(LoadError, match=message):
        fetch("user/model")


def test_of_a_very_long_word_the_first_characters_are_read_and_a_description_is_not_cut(pair):
    processor, word = load_extractor(pair[0]).processor, "acgt" * 200
    (pieces,) = processor.word_pieces(word, [(0, len(word))])
    assert pieces == processor.tokenizer.tokenize(word[:MAX_WORD_LENGTH])
    lengths = [
        processor.prompt_length({"entities": {"Drug": ""}, "entity_descriptions": {"Drug": "긴 설명 " * times}})
        for times in (100, 200)
    ]
    assert lengths[1] > lengths[0] + 100


def test_what_a_swap_does_not_take_from_a_base_of_ours_is_reported(pair, tmp_path):
    model, _ = swap_encoder(*pair, continuation_pieces=True)
    model.save_pretrained(tmp_path)
    again, report = swap_encoder(tmp_path, None)
    assert report.changed["continuation_pieces"] == ("true", "false")
    assert not again.settings.continuation_pieces


FORMAT_1 = {
    "format": 1, "word_splitter": "korean", "lower_case": True, "continuation_pieces": False,
    "user_dictionary": "user_dictionary.tsv", "labels": ["Drug", "Disease"], "descriptions": {"Drug": "약물"},
    "threshold": 0.35, "window": {"max_length": 256, "window_overlap": 32},
    "validation": {"epoch": 3, "metric": "string_f1", "f1": 0.5, "precision": "no", "reference_scores": [[0.1], [0.2]]},
}  # fmt: skip


def test_settings_of_format_1_are_read_and_written_unchanged():
    settings = Settings.from_config({"glinerko": FORMAT_1})
    assert (settings.lower_case, settings.validation.reference_scores) == (True, [[0.1], [0.2]])
    assert settings.to_config() == {"glinerko": FORMAT_1 | {"continuation_pieces": False}}
    assert Settings.from_config({}).word_splitter == "whitespace"  # a model that was not made here
    with pytest.raises(LoadError, match="upgrade glinerko"):
        Settings.from_config({"glinerko": {"format": 2}})
