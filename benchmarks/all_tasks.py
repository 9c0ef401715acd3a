"""All tasks of the schema, learned here and by gliner2's own trainer, from the same weights on the same rows.

    python benchmarks/all_tasks.py --base_model outputs/starter-tasks/base \
        --korean_encoder outputs/starter-tasks/korean-encoder --seeds 42 43 44

One swapped model is the start of all. Each way to train it does the same number of steps with the same rates and batch:

- ours: the training script, with all tasks; ours, char: the same with gliner2's words for such languages;
- entities: the training script, with the entities of the same rows alone: what sharing the model costs them;
- gliner2, char: gliner2's own trainer as it is, with the word splitter that it has for languages without white space;
- gliner2, korean: the same with our word splitter passed in.

The prompts have no descriptions, which makes them a third shorter. All are scored in one way on the test rows, at
thresholds chosen on the validation rows. What is done is kept in --output_dir, so the same command goes on with a run
that was stopped; --only trains some ways, to run two processes.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from gliner2 import AutoExtractor
from gliner2.training.trainer import ExtractorTrainer, TrainingConfig

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import read_json, write_json, write_json_lines
from glinerko.corpus.parsing import unparse_row
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.schema import LabelSchema
from glinerko.model.extractor import KoreanExtractor, load_extractor
from glinerko.model.prediction import predict_spans
from glinerko.model.swap import swap_encoder
from glinerko.scoring.metrics import best_threshold, sweep
from glinerko.scoring.tasks import choose_thresholds, describe_task
from glinerko.sharing.tables import plain_table
from glinerko.training.checkpoints import BEST

ROOT = Path(__file__).parents[1]
TASKS = ROOT / "data" / "sample" / "tasks"
GLINER2 = {"gliner2, char": "char", "gliner2, korean": "korean"}
OURS = {"ours": "korean", "ours, char": "char", "entities": "korean"}
WAYS = (*OURS, *GLINER2)


@dataclass
class Arguments:
    base_model: str = option(help="base GLiNER2")
    korean_encoder: str = option(help="encoder to put into it")
    seeds: list[int] = option([42, 43, 44], "seeds")
    only: list[str] | None = option(None, "ways to train (default: all)", choices=WAYS)
    num_train_epochs: int = option(10, "epochs", at_least=1)
    per_device_train_batch_size: int = option(8, "windows in a batch", at_least=1)
    learning_rate: float = option(1e-3, "learning rate of encoder and heads")
    output_dir: str = option("outputs/benchmarks/all_tasks", "directory for models and figures")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    directory = Path(args.output_dir)
    rows = {split: load_rows(str(TASKS / f"{split}.jsonl"))[0] for split in ("train", "validation", "test")}
    schema = label_schema(rows["train"]).without_descriptions()
    for seed in args.seeds:
        for way in args.only or WAYS:
            place = directory / f"{way} {seed}"
            if not (place / "scores.json").is_file():
                train(way, seed, place, rows, schema, args)
                splitter = GLINER2.get(way)
                model = load_extractor(place / BEST, word_splitter=splitter)
                write_json(
                    place / "scores.json", score(model, rows, schema if way != "entities" else schema.entities_only())
                )
    console = make_console()
    console.print(table(directory, args.seeds))


def train(way: str, seed: int, place: Path, rows: Mapping[str, Dataset], schema: LabelSchema, args: Arguments) -> None:
    """Train in one of the ways; the model is written to ``place/best``."""
    rate, batch = args.learning_rate, args.per_device_train_batch_size
    if way in GLINER2:
        start = place / "start"
        swap_encoder(args.base_model, args.korean_encoder, schema=schema, seed=seed)[0].save_pretrained(start)
        splitter = GLINER2[way] if GLINER2[way] == "char" else load_extractor(start).processor.word_splitter.splitter
        random.seed(seed)
        torch.manual_seed(seed)
        config = TrainingConfig(
            output_dir=str(place / "run"), num_epochs=args.num_train_epochs, batch_size=batch,
            encoder_lr=rate, task_lr=rate, fp16=False, bf16=False, num_workers=0, seed=seed, eval_strategy="no",
            save_best=False,
        )  # fmt: skip
        model = AutoExtractor.from_pretrained(str(start), word_splitter=splitter)
        ExtractorTrainer(model=model, config=config).train(train_data=[gliner2_row(row) for row in rows["train"]])
        model.save_pretrained(str(place / BEST))
        return
    files = {split: str(TASKS / f"{split}.jsonl") for split in ("train", "validation")}
    if way == "entities":
        for split in files:
            files[split] = str(place / "rows" / f"{split}.jsonl")
            keys = ("id", "text", "entities", "entity_descriptions")
            Path(files[split]).parent.mkdir(parents=True, exist_ok=True)
            write_json_lines(Path(files[split]), ({key: unparse_row(row)[key] for key in keys} for row in rows[split]))
    options = {
        "base_model": args.base_model, "korean_encoder": args.korean_encoder, "output_dir": place, "seed": seed,
        "train_file": files["train"], "validation_file": files["validation"], "encoder_learning_rate": rate,
        "head_learning_rate": rate, "num_train_epochs": args.num_train_epochs, "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1, "overwrite_output_dir": True, "label_descriptions": False,
        "word_splitter": OURS[way],
    }  # fmt: skip
    script = ROOT / "scripts" / "train_gliner2_korean_encoder.py"
    command = [sys.executable, script, *(part for name, value in options.items() for part in (f"--{name}", value))]
    subprocess.run(list(map(str, command)), check=True)


def gliner2_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in the form of gliner2's trainer; it has no way to say that there is no relation or structure."""
    written = unparse_row(row)
    keys = ("entities", "classifications", "relations", "json_structures")
    return {"input": written["text"], "output": {key: written[key] for key in keys if written.get(key)}}


def score(model: KoreanExtractor, rows: Mapping[str, Dataset], schema: LabelSchema) -> dict[str, Any]:
    """The scores on the test rows, at thresholds chosen on the validation rows."""
    examples = {split: [Example.from_row(row) for row in rows[split]] for split in ("validation", "test")}
    found = {split: predict_spans(model, model.split(rows[split], schema), schema) for split in examples}
    chosen = best_threshold(sweep("string_f1", examples["validation"], found["validation"].at_threshold, schema.labels))
    scores = sweep("string_f1", examples["test"], found["test"].at_threshold, schema.labels, [chosen])[chosen]
    thresholds = choose_thresholds(examples["validation"], found["validation"].found, schema.tasks)
    answers = found["test"].found(thresholds) if thresholds else []
    tasks = {task.name: describe_task(examples["test"], answers, task, thresholds[task.name]) for task in schema.tasks}
    return {"threshold": chosen, "entities": scores.to_dict(), "tasks": tasks}


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the table, by name."""
    values = {"entities: string F1": record["entities"]["overall"]["f1"]}
    for name, task in record["tasks"].items():
        for metric, scores in task["scores"].items():
            values[f"{name}: {metric}"] = scores["overall"]["f1"]
            if metric == "class_f1":
                values[f"{name}: macro F1"] = scores["macro_f1"]
        if "invented" in task:
            values[f"{name}: found where there is none"] = task["invented"][0] / max(task["invented"][1], 1)
    return values


def table(directory: Path, seeds: list[int]):
    """Every figure by way, one for each seed that is done."""
    shown = plain_table("Test rows, by seed", "", *WAYS)
    done = {
        way: [
            figures(read_json(file))
            for seed in seeds
            if (file := directory / f"{way} {seed}" / "scores.json").is_file()
        ]
        for way in WAYS
    }
    for name in dict.fromkeys(name for records in done.values() for record in records for name in record):
        shown.add_row(name, *(" ".join(f"{r[name]:.3f}" for r in done[way] if name in r) or "–" for way in WAYS))
    write_json(directory / "figures.json", done)
    return shown


if __name__ == "__main__":
    run(main)
