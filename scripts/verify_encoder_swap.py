"""Try an encoder swap before anything is trained: load both models, swap, save, reload, and extract once.

    python scripts/verify_encoder_swap.py
    python scripts/verify_encoder_swap.py --base_model BASE --korean_encoder ENCODER

Needs no GPU and no data. The exit status is 0 only if the swap works.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

import torch
from transformers import set_seed

from glinerko.cli import make_console, parse_arguments, run
from glinerko.data import LabelSchema
from glinerko.errors import SwapError
from glinerko.hub import load_extractor
from glinerko.reports import swap_table
from glinerko.swap import swap_encoder, weight_checksum
from glinerko.windows import Window

TEXT = "당뇨병 환자에게 인슐린 10단위를 투여하고 HbA1c를 추적함"


@dataclass
class Arguments:
    base_model: str = field(default="fastino/gliner2-base-v1", metadata={"help": "GLiNER2: Hub id or directory"})
    korean_encoder: str = field(
        default="team-lucid/deberta-v3-base-korean", metadata={"help": "encoder to install: Hub id or directory"}
    )
    head_init: str = field(
        default="keep", metadata={"help": "keep the heads bit for bit or start new ones", "choices": ["keep", "reinit"]}
    )
    max_width: int = field(default=12, metadata={"help": "widest span that is scored, in words"})
    seed: int = 42


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_seed(args.seed)
    console = make_console()
    schema = LabelSchema(("Disease", "Drug", "Procedure", "Biomarker"), {})
    model, report = swap_encoder(
        args.base_model,
        args.korean_encoder,
        max_width=args.max_width,
        schema=schema,
        head_init=args.head_init,
        seed=args.seed,
    )
    console.print(swap_table(report))

    words = model.processor.word_splitter.splitter.split(TEXT)
    pieces = model.processor.word_pieces(TEXT, words)
    console.print("Words and pieces:", " ".join("·".join(word) for word in pieces), highlight=False)
    window = Window(TEXT, words, schema.labels)
    scores = model.span_probabilities(model.processor.collate([window], schema))[0]
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        again = load_extractor(directory)
    if weight_checksum(again) != weight_checksum(model) or again.max_width != model.max_width:
        raise SwapError("a saved and reloaded model is not the same")
    if scores is None:
        console.print("[yellow]The count gate is shut before training: nothing would be extracted. Training opens it.")
    elif not torch.isfinite(scores).all():
        raise SwapError("the swapped model gives scores that are not finite")
    console.print("The swap works: scores are finite, and a saved and reloaded model is the same.")


if __name__ == "__main__":
    run(main)
