"""Look at a corpus before training: labels that disagree, near-duplicates, what can be learned, time and memory.

    python scripts/doctor.py --train_file train.jsonl
    python scripts/doctor.py --train_file train.jsonl --test_file test.jsonl --korean_encoder ENCODER

It reads the rows that training reads. Labels that disagree, near-duplicates, personal data and words for the user
dictionary need no model. What the windows hold, and the time and memory of a run, need the base model and the encoder.
Without them this part is left out, and a line says so. Personal data is never shown: only its documents are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import (
    GlinerkoError,
    check_output,
    check_writable,
    write_json,
    write_text,
)
from glinerko.corpus.diagnosis import diagnose
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.report import report_data
from glinerko.corpus.rows import Example, Offsets
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.suggestions import suggest_words
from glinerko.corpus.windows import WINDOW_OVERLAP, training_windows
from glinerko.corpus.words import KoreanWordSplitter, WordSplitter, load_word_splitter
from glinerko.model.extractor import load_extractor
from glinerko.model.spans import MAX_WIDTH
from glinerko.model.swap import SwapArguments, swap_encoder
from glinerko.sharing.doctor import diagnosis_tables, estimate_table, suggestion_table, tables_page
from glinerko.sharing.tables import data_table
from glinerko.training.run import choose_precision
from glinerko.training.trial import estimate_run

FIGURES, PAGE, WORDS = "doctor.json", "index.html", "user_dictionary.tsv"


@dataclass
class Arguments(SwapArguments):
    train_file: str | None = option(None, "training documents, JSON lines")
    validation_file: str | None = option(None, "validation documents")
    test_file: str | None = option(None, "test documents")
    labels: list[str] | None = option(None, "labels to use (default: all in the training rows)")
    on_bad_row: str = option("raise", "reaction to a malformed row: stop, or leave it out", choices=["raise", "skip"])
    max_length: int = option(512, "pieces in a window, prompt included", at_least=16)
    per_device_train_batch_size: int = option(8, "windows per batch of the run to estimate", at_least=1)
    output_dir: str = option("outputs/doctor", "directory for doctor.json, index.html and user_dictionary.tsv")
    seed: int = option(42, "random seed", at_least=0)


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    console = make_console()
    if args.train_file is None:
        raise GlinerkoError("say which documents: --train_file train.jsonl")
    output = check_writable(args.output_dir)
    files = {"training": args.train_file, "validation": args.validation_file, "test": args.test_file}
    for name in (FIGURES, PAGE, WORDS):
        check_output(output / name, *files.values(), args.user_dictionary)

    # 1. The documents and their words.
    splits, skipped = {}, {}
    for split, file in files.items():
        if file is not None:
            options = {"labels": args.labels, "named_labels_only": split == "training", "on_bad_row": args.on_bad_row}
            splits[split], skipped[split] = load_rows(file, **options)
    schema = label_schema(splits["training"], args.labels)
    splitter = load_word_splitter(args.word_splitter, user_dictionary=args.user_dictionary)
    words = {split: split_words(rows, splitter, split) for split, rows in splits.items()}

    # 2. What needs no model.
    width = args.max_width or MAX_WIDTH
    diagnosis = diagnose(splits, words, width)
    figures: dict[str, Any] = {"files": files, "skipped": skipped, **diagnosis.to_dict()}
    tables = diagnosis_tables(diagnosis)
    if isinstance(splitter, KoreanWordSplitter):
        examples = [Example.from_row(row) for row in splits["training"]]
        bar = partial(tqdm, desc="Trying words", unit=" words", leave=False, disable=None)
        suggestions = suggest_words(examples, words["training"], splitter, width, bar)
        figures["suggested_words"] = [asdict(each) for each in suggestions]
        if suggestions:
            lines = (f"{each.form}\tNNP\t0.0\n" for each in suggestions)
            write_text(output / WORDS, "".join(lines))
            tables.append(suggestion_table(suggestions))

    # 3. What needs the model.
    try:
        more, of_run = look_with_model(args, splits, schema, skipped)
        figures |= of_run
        tables += more
    except GlinerkoError as error:
        console.print(f"Without a model, windows, time and memory are not known: {error}", style="yellow")
    show(console, tables, figures, output)
    console.print(f"Next     python scripts/train_gliner2_korean_encoder.py --train_file {args.train_file}")


def split_words(rows: Dataset, splitter: WordSplitter, name: str) -> list[list[Offsets]]:
    """The words of each document."""
    chunks = [rows["text"][first : first + 256] for first in range(0, len(rows), 256)]
    bar = tqdm(chunks, desc=f"Splitting {name}", unit="× 256 documents", leave=False, disable=None)
    return [words for chunk in bar for words in splitter.split_batch(chunk)]


def look_with_model(
    args: Arguments, splits: Mapping[str, Dataset], schema: LabelSchema, skipped: Mapping[str, int]
) -> tuple[list[Table], dict[str, Any]]:
    """The data report of training, and the time and memory of a run."""
    base, options = load_extractor(args.base_model), args.options
    if base.max_width is None:  # then --max_width is only about what is looked for without a model
        options["max_width"] = None
    extractor, _ = swap_encoder(args.base_model, args.encoder, schema=schema, seed=args.seed, base=base, **options)
    extractor.configure(window={"max_length": args.max_length, "window_overlap": WINDOW_OVERLAP})
    windows = training_windows(extractor.align(splits["training"]), schema)
    extractor.fit_to(windows)
    aligned = {split: extractor.align(rows) for split, rows in splits.items()}
    reports = {split: report_data(rows, schema, split) for split, rows in aligned.items()}
    for split, report in reports.items():
        report.bad_rows_skipped = skipped[split]
    accelerator = Accelerator(mixed_precision=choose_precision("auto"))
    estimate = estimate_run(extractor, windows, schema, accelerator, args.per_device_train_batch_size)
    figures = {"data": {split: report.to_dict() for split, report in reports.items()}, "estimate": asdict(estimate)}
    return [data_table(reports), estimate_table(estimate)], figures


def show(console: Console, tables: Sequence[Table], figures: Mapping[str, Any], output: Path) -> None:
    """Print the tables, and write them as JSON and as a page."""
    for table in tables:
        console.print(table)
    write_json(output / FIGURES, figures)
    write_text(output / PAGE, tables_page(f"{Path(figures['files']['training']).name}: data", tables))
    console.print(f"Report   {output / PAGE}, {output / FIGURES}; they show mention strings")
    if figures.get("suggested_words"):
        console.print(f"Words    --user_dictionary {output / WORDS}")


if __name__ == "__main__":
    run(main)
