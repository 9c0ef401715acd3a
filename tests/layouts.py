"""The nine candidates as their repositories are laid out: full-size configs, small tokenizers, no weights."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import BertWordPieceTokenizer
from transformers import (
    DebertaV2Config,
    ElectraConfig,
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


def word_piece(directory: Path, texts: list[str], tokenizer_class: str | None, json_file: bool) -> None:
    tokenizer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    tokenizer.train_from_iterator(texts, vocab_size=8000, show_progress=False)
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


def build(name: str, directory: Path, texts: list[str]) -> Path:
    """Lay out the candidate called ``name`` in ``directory``."""
    directory.mkdir(parents=True)

    def save(config: PretrainedConfig) -> None:
        config.to_json_file(directory / "config.json")

    xlm_roberta = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}
    if name == "team-lucid/deberta-v3-base-korean":
        save(deberta(64100))
        word_piece(directory, texts, "DebertaV2Tokenizer", json_file=True)
    elif name == "kakaobank/kf-deberta-base":
        save(deberta(130000))
        word_piece(directory, texts, "BertTokenizer", json_file=True)
    elif name in ("microsoft/mdeberta-v3-base", "microsoft/deberta-v3-base"):
        multilingual = name.startswith("microsoft/m")
        save(deberta(251000 if multilingual else 128100))
        sentence_piece(directory, texts, "spm.model", multilingual, **_DEBERTA_PIECES)
    elif name == "monologg/koelectra-base-v3":
        save(
            ElectraConfig(
                vocab_size=35000, embedding_size=768, hidden_size=768, num_attention_heads=12, intermediate_size=3072
            )
        )
        word_piece(directory, texts, None, json_file=False)
    elif name == "klue/roberta-base":
        save(RobertaConfig(vocab_size=32000, max_position_embeddings=514, type_vocab_size=1))
        word_piece(directory, texts, "BertTokenizer", json_file=True)
    elif name == "xlm-roberta-base":
        save(XLMRobertaConfig(**xlm_roberta))
        sentence_piece(directory, texts, "sentencepiece.bpe.model")
    elif name == "upskyy/kure-v1":
        large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        save(XLMRobertaConfig(**{**xlm_roberta, "max_position_embeddings": 8194}, **large))
        sentence_piece(directory, texts, "sentencepiece.bpe.model")
        modules = [{"idx": 0, "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "path": "1_Pooling"}]
        (directory / "modules.json").write_text(json.dumps(modules))
        (directory / "1_Pooling").mkdir()
        (directory / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 1024}')
        (directory / "README.md").write_text("---\nlicense: mit\n---\n# Model card\n")
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
