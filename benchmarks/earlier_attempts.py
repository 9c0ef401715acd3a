"""What gliner2's own trainer makes of Korean documents, by LoRA or in full, and what its count gate has to do with it.

    python benchmarks/earlier_attempts.py --base_model BASE --train_file train.jsonl --test_file dev.jsonl \\
        --max_train_samples 50
    python benchmarks/earlier_attempts.py --base_model BASE --korean_encoder ENCODER --full --head_init reinit \\
        --train_file train.jsonl --test_file dev.jsonl

gliner2's trainer as it comes: words by white space, mentions as strings, no loss on the count of entities. Before and
after, string F1 at the best of the thresholds 0.1 to 0.6 for the very documents that are scored, as the attempts that
ended at 0 had it (so it flatters), and at gliner2's default of 0.5; the same with the count head's gate held open; the
share of the windows that the gate shuts; and how many of a few hundred new count heads would shut them all.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from gliner2.inference.engine import SpanExtractor
from gliner2.layers import create_mlp
from gliner2.processor import SchemaTransformer
from gliner2.training.trainer import ExtractorTrainer, TrainingConfig
from transformers import set_seed

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import Example, LabelSchema, label_schema, load_rows
from glinerko.files import write_json
from glinerko.metrics import sweep
from glinerko.modeling import KoreanSpanExtractor
from glinerko.prediction import predict_spans
from glinerko.swap import swap_encoder
from glinerko.targets import annotate

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 7))


@dataclass
class Arguments:
    base_model: str = field(metadata={"help": "a GLiNER2: Hub id or directory"})
    train_file: str = field(metadata={"help": "labelled documents, JSON lines"})
    test_file: str = field(metadata={"help": "others to score, JSON lines"})
    korean_encoder: str | None = field(default=None, metadata={"help": "encoder to swap in first; none by default"})
    head_init: str = field(default="keep", metadata={"help": "of the swap", "choices": ["keep", "reinit"]})
    full: bool = field(default=False, metadata={"help": "train all weights, not LoRA adapters of rank 16"})
    max_train_samples: int | None = field(default=None, metadata={"help": "use only so many training rows"})
    num_train_epochs: int = field(default=10, metadata={"help": "passes over them"})
    batch_size: int = field(default=8, metadata={"help": "documents a step"})
    encoder_learning_rate: float = field(default=1e-5, metadata={"help": "of full training"})
    head_learning_rate: float = field(default=5e-4, metadata={"help": "of the heads, or of the adapters"})
    seed: int = 42
    output_file: str = field(default="outputs/benchmarks/earlier_attempts.json", metadata={"help": "the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    console = make_console()
    set_seed(args.seed)
    training, _ = load_rows(args.train_file, max_rows=args.max_train_samples)
    test, _ = load_rows(args.test_file)
    schema = label_schema(training)
    model, _ = swap_encoder(
        args.base_model,
        args.korean_encoder,
        max_width=8,
        word_splitter="whitespace",
        schema=schema,
        head_init=args.head_init,
        seed=args.seed,
    )
    result = {"arguments": vars(args), "before": measure(model, test, schema)}
    console.print(describe("before", result["before"]), highlight=False)
    train(model, training, args)
    result["after"] = measure(model, test, schema)
    console.print(describe("after", result["after"]), highlight=False)
    write_json(Path(args.output_file), result)


def train(model: KoreanSpanExtractor, rows: Dataset, args: Arguments) -> None:
    """Train ``model`` in place, with gliner2's own processor and loss."""
    ours = model.processor
    model._compute_sample_loss = SpanExtractor._compute_sample_loss.__get__(model)  # ours supervises the count
    model.processor = SchemaTransformer(tokenizer=ours.tokenizer, token_pooling=ours.token_pooling)
    records = []
    for example in map(Example.from_row, rows):
        entities = {label: [m.text for m in example.mentions if m.label == label] for label in example.labels}
        records.append({"input": example.text, "output": {"entities": entities}})
    with tempfile.TemporaryDirectory() as directory:
        config = TrainingConfig(
            output_dir=directory,
            num_epochs=args.num_train_epochs,
            batch_size=args.batch_size,
            encoder_lr=args.encoder_learning_rate,
            task_lr=args.head_learning_rate,
            use_lora=not args.full,
            eval_strategy="no",
            save_best=False,
            num_workers=0,
            max_len=192,  # words; gliner2 cuts nothing by default, and attention grows with the square
            validate_data=False,
            seed=args.seed,
        )
        ExtractorTrainer(model=model, config=config).train(records)
    model.processor = ours


def measure(model: KoreanSpanExtractor, rows: Dataset, schema: LabelSchema) -> dict[str, Any]:
    """Best string F1 as the count head has it and with its gate held open, and the share of windows it shuts.

    ``new_heads_that_shut`` is the share of new count heads that would shut every window.
    """
    annotated = annotate(rows, model.processor, schema, max_width=8, max_length=512, window_overlap=64)
    examples = [Example.from_row(row) for row in annotated]

    def f1_by_threshold() -> tuple[dict[float, float], float]:
        predictions = predict_spans(model, annotated, schema)
        scores = sweep("string_f1", examples, predictions.at_threshold, schema.labels, THRESHOLDS)
        f1 = {threshold: each.overall.f1 for threshold, each in scores.items()}
        return f1, predictions.closed_gates / predictions.windows

    prompts: list[torch.Tensor] = []
    hook = model.count_pred.register_forward_pre_hook(lambda _, inputs: prompts.append(inputs[0].flatten(0, -2)))
    as_is, shut = f1_by_threshold()
    hook.remove()
    hook = model.count_pred.register_forward_hook(hold_open)
    held_open, _ = f1_by_threshold()
    hook.remove()
    new_heads = new_heads_that_shut(torch.cat(prompts))
    best = {"f1": max(as_is.values()), "f1_gate_held_open": max(held_open.values())}
    return {**best, "f1_by_threshold": as_is, "gates_shut": shut, "new_heads_that_shut": new_heads}


@torch.no_grad()
def new_heads_that_shut(prompts: torch.Tensor, heads: int = 500) -> float:
    """The share of new count heads that predict 0 for each of ``prompts``, ``[windows, hidden]``."""
    hidden = prompts.shape[-1]
    shapes = {"input_dim": hidden, "intermediate_dims": [hidden * 2], "output_dim": 20}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        new = (create_mlp(**shapes, dropout=0.0, activation="relu", add_layer_norm=False) for _ in range(heads))
        return sum(bool((head.to(prompts.device)(prompts).argmax(-1) == 0).all()) for head in new) / heads


def hold_open(module: torch.nn.Module, inputs: tuple, logits: torch.Tensor) -> torch.Tensor:
    """Make a count of 0 the least likely one."""
    return logits.index_fill(-1, torch.tensor([0], device=logits.device), -torch.inf)


def describe(when: str, figures: dict[str, Any]) -> str:
    default = figures["f1_by_threshold"][0.5]
    return (
        f"{when + ' training':16} string F1 {figures['f1']:.4f} (at threshold 0.5 {default:.4f}), "
        f"with the gate held open {figures['f1_gate_held_open']:.4f}; gate shut on {figures['gates_shut']:.0%} of the "
        f"windows; {figures['new_heads_that_shut']:.1%} of new count heads would shut it on all"
    )


if __name__ == "__main__":
    run(main)
