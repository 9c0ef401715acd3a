"""Masking and replaced-token detection (DeBERTa-v3's) at equal compute, one thread each.

python benchmarks/pretraining_objectives.py masking TEXT OUTPUT_DIR 1970
python benchmarks/pretraining_objectives.py detection TEXT OUTPUT_DIR 1285
"""

import math
import sys
import time
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import DebertaV2ForMaskedLM, PreTrainedTokenizerFast, get_scheduler

from glinerko.training.pretraining import (
    MaskedLanguageModel,
    WholeWordCollator,
    encoder_config,
    read_rows,
    save_encoder,
)
from glinerko.training.speed import keep_freed_memory, use_fast_dropout
from glinerko.training.texts import (
    SPECIAL_TOKENS,
    choose_validation,
    load_documents,
    pack_texts,
    word_piece_tokenizer,
)

LENGTH, BATCH, LEARNING_RATE, DETECTION_WEIGHT = 128, 16, 1e-3, 50
MASKED = {"masking": 0.3, "detection": 0.2}


class Detection(torch.nn.Module):
    """A generator that fills masked pieces, and a detector that finds what it filled in wrongly.

    The detector's embeddings are the generator's, without their gradient, and a difference of its own.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        generator = DebertaV2ForMaskedLM(encoder_config(256, 2, vocab_size, 0.0))
        self.generator = MaskedLanguageModel(generator, separate=True)
        self.model = DebertaV2ForMaskedLM(encoder_config(256, 4, vocab_size, 0.0))
        self.head = torch.nn.Sequential(
            torch.nn.Linear(256, 256), torch.nn.GELU(), torch.nn.LayerNorm(256), torch.nn.Linear(256, 1)
        )
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("deberta."))
        torch.nn.init.zeros_(self.model.deberta.embeddings.word_embeddings.weight)

    def forward(self, input_ids: torch.Tensor, documents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The losses of generator and detector, and the share of the replaced pieces that were found."""
        generator, masked = self.generator.model, labels != -100
        shared = generator.deberta.embeddings.word_embeddings
        states = read_rows(generator.deberta, input_ids, documents, separate=True)[masked]
        logits = generator.cls(states) if generator.legacy else generator.lm_predictions(states, shared)
        with torch.no_grad():
            sampled = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
        filled = input_ids.masked_scatter(masked, sampled)
        replaced = torch.zeros_like(input_ids, dtype=torch.float).masked_scatter(
            masked, (sampled != labels[masked]).float()
        )
        real, embeddings = documents > 0, self.model.deberta.embeddings
        words = F.embedding(filled, shared.weight.detach()) + embeddings.word_embeddings(filled)
        pairs = (documents[:, None, :] == documents[:, :, None]) & real[:, :, None]
        states = embeddings(inputs_embeds=words, mask=real.long())
        states = self.model.deberta.encoder(states, pairs.long(), output_hidden_states=False).last_hidden_state
        scores = self.head(states)[..., 0]
        detector_loss = F.binary_cross_entropy_with_logits(scores[real], replaced[real])
        found = ((scores > 0) & (replaced > 0)).sum() / replaced.sum()
        return torch.stack([F.cross_entropy(logits, labels[masked]), detector_loss, found])

    @torch.no_grad()
    def finish(self) -> None:
        """Add the shared embeddings to the detector's own."""
        shared = self.generator.model.deberta.embeddings.word_embeddings
        self.model.deberta.embeddings.word_embeddings.weight += shared.weight


def main(objective: str, text: str, output_dir: str, steps: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    documents, _ = load_documents([text])
    drawn = choose_validation(documents, 0.005, 1000, 42)
    measured = set(drawn.tolist())
    texts = (row["text"] for index, row in enumerate(documents) if index not in measured)
    vocabulary = word_piece_tokenizer(texts, 8000, 3)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, model_max_length=512, **SPECIAL_TOKENS)
    rows = pack_texts(documents, tokenizer, LENGTH, drawn).with_format("numpy")
    torch.manual_seed(42)
    if objective == "detection":
        model = Detection(len(tokenizer))
    else:
        model = MaskedLanguageModel(DebertaV2ForMaskedLM(encoder_config(256, 4, len(tokenizer), 0.0)), separate=True)
    use_fast_dropout(model)
    collator = WholeWordCollator(tokenizer, MASKED[objective], 42)
    order = torch.Generator().manual_seed(1)
    loader = DataLoader(rows, batch_size=BATCH, shuffle=True, collate_fn=collator, generator=order)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    schedule = get_scheduler("linear", optimizer, math.ceil(0.05 * steps), steps)
    figures, begin = [], time.monotonic()
    for step, batch in enumerate(islice(chain.from_iterable(repeat(loader)), steps), 1):
        values = model.train()(**batch)
        if objective == "detection":
            loss = values[0] + DETECTION_WEIGHT * values[1]
        else:
            values = torch.stack([values[0] / values[2], values[1] / values[2]])
            loss = values[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        figures.append(values.tolist())
        if step % 100 == 0 or step == steps:
            means = ", ".join(f"{value:.4f}" for value in np.mean(figures[-100:], 0))
            print(f"{step}: {means}; {(time.monotonic() - begin) / step:.2f} s a step", flush=True)
    if objective == "detection":
        model.finish()
    save_encoder(model.model, tokenizer, Path(output_dir) / "encoder")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
