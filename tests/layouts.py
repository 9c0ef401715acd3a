"""The candidates as their repositories are laid out: full-size configs, small tokenizers, no weights."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import (
    BertWordPieceTokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    DebertaV2Config,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from glinerko.training.pretraining import encoder_config

_DEBERTA_PIECES = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
                   "eos_piece": "[SEP]", "unk_piece": "[UNK]"}  # fmt: skip


def deberta(vocab_size: int) -> DebertaV2Config:
    return encoder_config(768, 12, vocab_size)


def modern_bert(vocab_size: int, positions: int) -> ModernBertConfig:
    special = {"bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 1, "sep_token_id": 1, "pad_token_id": 2}
    return ModernBertConfig(vocab_size=vocab_size, max_position_embeddings=positions, **special)


def word_piece(
    directory: Path, texts: list[str], tokenizer_class: str | None, json_file: bool, vocab_size: int = 8000
) -> None:
    tokenizer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    tokenizer.train_from_iterator(texts, vocab_size=vocab_size, show_progress=False)
    if json_file:
        tokenizer.save(str(directory / "tokenizer.json"))
    else:
        tokenizer.save_model(str(directory))
    names = {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    config = {**names, "do_lower_case": False} | ({"tokenizer_class": tokenizer_class} if tokenizer_class else {})
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def sentence_piece(directory: Path, texts: list[str], file: str, knows_korean: bool = True, **pieces) -> None:
    apart = [re.sub(r"([가-힣])", r" \1 ", text) for text in texts]
    content = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(apart), model_writer=content, vocab_size=460, character_coverage=1.0, hard_vocab_limit=False,
        minloglevel=2, **pieces,
    )  # fmt: skip
    model = ModelProto.FromString(content.getvalue())
    if knows_korean:
        known = {piece.piece for piece in model.pieces}
        words = Counter(word for text in texts for word in re.findall("[가-힣]{2,}", text))
        for word in words:
            for piece in (f"▁{word}", word):
                if piece not in known:
                    model.pieces.add(piece=piece, score=-1.0)
    (directory / file).write_bytes(model.SerializeToString())
    (directory / "tokenizer_config.json").write_text("{}")


def byte_pair(directory: Path, texts: list[str], special: list[str], byte_level: bool, vocab_size: int = 8000) -> None:
    """Byte pairs of bytes, as ModernBERT has them, or of characters with single bytes to fall back on, as Gemma.

    Args:
        special: The tokens that begin and end a text, and those for padding, unknown pieces and masks.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=special[3], byte_fallback=not byte_level, fuse_unk=True))
    first = special
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        first = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=first, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin, end = special[:2]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    names = dict(zip(("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"), special, strict=True))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({**names, "tokenizer_class": "PreTrainedTokenizerFast" if byte_level else "GemmaTokenizer"})
    )


def build(name: str, directory: Path, texts: list[str]) -> Path:
    """Lay out the candidate called ``name`` in ``directory``."""
    directory.mkdir(parents=True)

    def save(config: PretrainedConfig) -> None:
        config.to_json_file(directory / "config.json")

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    xlm_roberta = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}
    if name == "team-lucid/deberta-v3-base-korean":
        save(deberta(64100))
        word_piece(directory, texts, "DebertaV2Tokenizer", json_file=True)
    elif name == "kakaobank/kf-deberta-base":
        save(deberta(130000))
        word_piece(directory, texts, "BertTokenizer", json_file=True)
    elif name.partition("/")[2] in ("mdeberta-v3-base", "mdeberta-v3-base-kor-further", "deberta-v3-base"):
        multilingual = "/mdeberta" in name
        save(deberta(251000 if multilingual else 128100))
        sentence_piece(directory, texts, "spm.model", multilingual, **_DEBERTA_PIECES)
    elif name in ("monologg/koelectra-base-v3", "snunlp/KR-ELECTRA-discriminator"):
        save(
            ElectraConfig(
                vocab_size=35000 if name.startswith("monologg") else 30000, embedding_size=768, hidden_size=768,
                num_attention_heads=12, intermediate_size=3072,
            )
        )  # fmt: skip
        word_piece(directory, texts, None, json_file=False)
    elif name in ("klue/roberta-base", "klue/roberta-large"):
        size = large if name.endswith("large") else {}
        save(RobertaConfig(vocab_size=32000, max_position_embeddings=514, type_vocab_size=1, **size))
        word_piece(directory, texts, "BertTokenizer", json_file=True)
    elif name == "xlm-roberta-base":
        save(XLMRobertaConfig(**xlm_roberta))
        sentence_piece(directory, texts, "sentencepiece.bpe.model")
    elif name == "upskyy/kure-v1":
        save(XLMRobertaConfig(**{**xlm_roberta, "max_position_embeddings": 8194}, **large))
        sentence_piece(directory, texts, "sentencepiece.bpe.model")
        modules = [{"idx": 0, "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "path": "1_Pooling"}]
        (directory / "modules.json").write_text(json.dumps(modules))
        (directory / "1_Pooling").mkdir()
        (directory / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 1024}')
        (directory / "README.md").write_text("---\nlicense: mit\n---\n# Model card\n")
    elif name == "madatnlp/km-bert":
        save(BertConfig(vocab_size=16424))
        # Mostly single characters, but words as well: the vocabulary that it has from KR-BERT keeps 냉장고 whole.
        characters = {character for text in texts for character in text if not character.isspace()}
        word_piece(directory, texts, "BertTokenizer", json_file=False, vocab_size=2 * len(characters) + 150)
    elif name == "skt/A.X-Encoder-base":
        save(modern_bert(50000, positions=16384))
        # The kind of tokenizer is assumed: that of the first ModernBERT.
        byte_pair(directory, texts, ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"], byte_level=True)
    elif name == "jhu-clsp/mmBERT-base":
        save(modern_bert(256000, positions=8192))
        byte_pair(directory, texts, ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>"], byte_level=False)
    elif name.startswith("fastino/"):
        config = {"model_type": "extractor", "architecture": "boundary" if "2.5" in name else "span"}
        encoder = deberta(251000 if "multi" in name else 128100)
        if "small" in name:
            encoder.hidden_size, encoder.num_attention_heads, encoder.intermediate_size = 384, 6, 1536
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "encoder_config").mkdir()
        encoder.to_json_file(directory / "encoder_config" / "config.json")
    elif name in ("urchade/gliner_multi", "taeminlee/gliner_ko"):
        encoder = {"model_type": "deberta-v2", "hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 250105}
        config = {
            "model_name": "microsoft/mdeberta-v3-base",
            "hidden_size": 512,
            "max_width": 12,
            "encoder_config": encoder,
        }
        (directory / "gliner_config.json").write_text(json.dumps(config))
    else:
        raise ValueError(name)
    return directory


def gliner_v1(encoder: Path, directory: Path, max_len: int = 384) -> Path:
    """A small GLiNER v1 model on the architecture and tokenizer of ``encoder``, as ``gliner`` saves it."""
    from gliner.config import UniEncoderSpanConfig
    from gliner.model import UniEncoderSpanGLiNER

    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder)
    config = UniEncoderSpanConfig(
        model_name="starter/korean-encoder",
        encoder_config=DebertaV2Config.from_pretrained(encoder).to_dict(),
        hidden_size=32,
        max_width=4,
        max_len=max_len,
        span_mode="markerV0",
    )
    tokenizer.add_tokens([config.ent_token, config.sep_token], special_tokens=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UniEncoderSpanGLiNER(config, tokenizer=tokenizer, backbone_from_pretrained=False)
        model.resize_embeddings()
    model.save_pretrained(str(directory))
    return directory
