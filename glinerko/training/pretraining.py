"""Pre-training an encoder: its config, masked language model, batches and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DebertaV2Config, DebertaV2ForMaskedLM, DebertaV2Model, PreTrainedTokenizerFast
from xxhash import xxh3_64_intdigest

from glinerko.common import LoadError, first_line
from glinerko.corpus.tokens import load_encoder_tokenizer, restore_tokenizer_class
from glinerko.hub import fetch, load_config, read_config
from glinerko.model.extractor import load_extractor
from glinerko.training.texts import SPECIAL_TOKENS


def encoder_config(hidden_size: int, layers: int, vocab_size: int, attention_dropout: float = 0.1) -> DebertaV2Config:
    """The settings of the DeBERTa-v3 family, at this size."""
    return DebertaV2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32 if hidden_size < 128 or hidden_size % 64 else hidden_size // 64,
        intermediate_size=hidden_size * 4,
        attention_probs_dropout_prob=attention_dropout,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
        max_position_embeddings=512,
        max_relative_positions=-1,
        type_vocab_size=0,
        pad_token_id=0,
    )


class MaskedLanguageModel(torch.nn.Module):
    """A DeBERTa-v2 whose language model head runs on the masked pieces only.

    Args:
        separate: Whether the attention in use can keep the documents of a row apart; eager attention can.
    """

    def __init__(self, model: DebertaV2ForMaskedLM, separate: bool = False):
        super().__init__()
        self.model, self.separate = model, separate

    def forward(
        self, input_ids: torch.Tensor, documents: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All arguments are ``[rows, pieces]``.

        Args:
            documents: The number of each piece's document in its row, from 1; 0 for padding.
            labels: The masked pieces, -100 elsewhere.

        Returns:
            The sum of the cross-entropies in nats, the number of masked pieces predicted right, and of all masked ones.
        """
        states = read_rows(self.model.deberta, input_ids, documents, self.separate)
        masked = labels != -100
        if self.model.legacy:
            logits = self.model.cls(states[masked])
        else:
            logits = self.model.lm_predictions(states[masked], self.model.deberta.embeddings.word_embeddings)
        wanted = labels[masked]
        right = logits.gather(-1, wanted[:, None])[:, 0] >= logits.amax(-1)  # amax is faster than argmax on a CPU
        return F.cross_entropy(logits.float(), wanted, reduction="sum"), right.sum(), masked.sum()


def read_rows(
    encoder: DebertaV2Model, input_ids: torch.Tensor, documents: torch.Tensor, separate: bool
) -> torch.Tensor:
    """The states ``[rows, pieces, hidden]`` of packed rows; if ``separate``, a piece sees its own document only."""
    if not separate:
        return encoder(input_ids, attention_mask=(documents > 0).long()).last_hidden_state
    # The model itself takes no mask of pairs, its parts do.
    states = encoder.embeddings(input_ids, mask=(documents > 0).long())
    pairs = (documents[:, None, :] == documents[:, :, None]) & (documents > 0)[:, :, None]
    return encoder.encoder(states, pairs.long(), output_hidden_states=False).last_hidden_state


@dataclass
class WholeWordCollator:
    """Makes batches of :func:`glinerko.training.texts.pack_texts` with whole words masked.

    The words are chosen by seed, epoch and the content of the batch only.
    """

    tokenizer: PreTrainedTokenizerFast
    mlm_probability: float = 0.15
    seed: int = 42
    epoch: int = 0

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``documents`` and ``labels``, each ``[rows, pieces]``; see :class:`MaskedLanguageModel`."""
        ids = _pad([row["input_ids"] for row in rows], self.tokenizer.pad_token_id)
        words = _pad([row["words"] for row in rows], -1)
        content = xxh3_64_intdigest(ids.numpy().tobytes(), seed=self.seed + self.epoch * 2**32)
        draws = torch.rand(ids.shape, generator=torch.Generator().manual_seed(content % 2**63))
        masked = (words >= 0) & (draws.gather(1, words.clamp(min=0)) < self.mlm_probability)
        ends = ids == self.tokenizer.sep_token_id
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        documents = 1 + ends.cumsum(1) - ends.long()
        return {
            "input_ids": ids.masked_fill(masked, self.tokenizer.mask_token_id),
            "documents": documents.masked_fill(torch.arange(ids.shape[1]) >= lengths[:, None], 0),
            "labels": ids.masked_fill(~masked, -100),
        }


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    tensors = [torch.as_tensor(np.asarray(row, dtype=np.int64)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def load_masked_language_model(name_or_path: str) -> tuple[DebertaV2ForMaskedLM, PreTrainedTokenizerFast, bool]:
    """A DeBERTa-v2, or the one in a GLiNER2; its tokenizer; and whether its language model head is new.

    Raises:
        LoadError: It is no DeBERTa-v2, or cannot be loaded.
    """
    directory = fetch(name_or_path)
    kind = read_config(directory).get("model_type")
    extractor = load_extractor(directory) if kind == "extractor" else None
    if extractor:
        kind = extractor.encoder.config.model_type
    if kind != "deberta-v2":
        raise LoadError(f"{name_or_path}: model_type {kind!r}; only a DeBERTa-v2 can be trained further here")
    if extractor:
        model, missing = DebertaV2ForMaskedLM(extractor.encoder.config), True
        model.deberta.load_state_dict(extractor.encoder.state_dict())
        tokenizer = extractor.processor.tokenizer
    else:
        model, missing = _load_weights(directory, name_or_path)
        tokenizer = load_encoder_tokenizer(directory)
    for name in ("cls_token", "sep_token"):
        if getattr(tokenizer, name) is None:
            raise LoadError(f"{name_or_path}: the tokenizer has no {name}")
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": SPECIAL_TOKENS["mask_token"]})
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer, missing


def _load_weights(directory: Path, name: str) -> tuple[DebertaV2ForMaskedLM, bool]:
    config = load_config(directory)
    try:
        model, info = DebertaV2ForMaskedLM.from_pretrained(
            directory, config=config, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # damaged files raise whatever their reader raises
        raise LoadError(f"{name}: the weights cannot be loaded: {first_line(error)}") from error
    missing = [key for key in info["missing_keys"] if key.startswith("deberta.")]
    if missing:
        raise LoadError(f"{name}: {len(missing)} weights are missing, for example {min(missing)}")
    return model, bool(info["missing_keys"])


def save_encoder(
    model: DebertaV2ForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    directory: Path,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write config, weights and tokenizer in the layout of a published encoder, for transformers 4 and 5.

    Args:
        weights: Those of ``model`` by name, if it has only a part of them itself.
    """
    model.save_pretrained(directory, state_dict=weights)
    tokenizer.save_pretrained(directory)
    restore_tokenizer_class(directory)
