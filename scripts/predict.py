"""Extract entities from Korean text: text in, one JSON object a document out.

    python scripts/predict.py --model user/model --text "당뇨병으로 메트포르민을 투여함"
    python scripts/predict.py --model outputs/medical/best --input_file notes.jsonl --output_file spans.jsonl
    cat notes.txt | python scripts/predict.py --model outputs/medical/best

An input file is JSON lines with a "text" (and an "id"), or plain text with one document a line; standard input is read
if neither is given. It is UTF-8. Documents are cut into the windows of training. Labels, descriptions and threshold are
those saved with the model. Output: {"id", "text", "entities": [{"start", "end", "label", "text", "score"}]}, offsets in
characters, end exclusive; in UTF-8, unless it goes to a terminal. An output file is only replaced when all is done.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from datasets import Dataset
from tqdm import tqdm

from glinerko.cli import SCORES, option, parse_arguments, run, set_log_levels
from glinerko.common import ESCAPE, DataError, GlinerkoError, check_output, first_line, replace_file
from glinerko.corpus.reading import read_texts, rows_from_texts
from glinerko.corpus.rows import LabelSchema
from glinerko.model.extractor import load_extractor
from glinerko.scoring.prediction import predict_spans


@dataclass
class Arguments:
    model: str = option(help="model: Hub id or directory")
    text: list[str] | None = option(None, "one document, or several")
    input_file: str | None = option(None, "JSON lines, or one document a line (default: standard input)")
    output_file: str | None = option(None, "JSON lines to write (default: standard output)")
    labels: list[str] | None = option(None, "labels to extract (default: the model's own)")
    threshold: float | None = option(
        None, "lowest score of a span, from 0 to 1; none is higher (default: the model's own)", **SCORES
    )
    batch_size: int = option(16, "windows per batch", at_least=1)
    device: str | None = option(None, "device: cpu, cuda, mps ... (default: a GPU if there is one)")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    if args.text and args.input_file is not None:
        raise GlinerkoError("pass --text or --input_file, not both")
    if args.output_file and not args.text:
        check_output(args.output_file, 0 if args.input_file is None else args.input_file)
    if args.text:
        ids, texts = [str(number) for number in range(1, len(args.text) + 1)], args.text
    else:
        ids, texts = read_texts(args.input_file)
    rows = rows_from_texts(texts, ids)
    empty = [identifier for identifier, text in zip(ids, texts, strict=True) if not text.strip()]
    if empty:
        print(f"{len(empty)} documents have no text, the first is {empty[0]}: no entities", file=sys.stderr)
    if not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors=ESCAPE)
    with replace_file(args.output_file) if args.output_file else nullcontext(sys.stdout) as file:
        for document in predict(args, rows):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    if args.output_file:
        print(f"{len(texts)} documents to {args.output_file}", file=sys.stderr)


def choose_device(requested: str | None) -> torch.device:
    """The requested device, or otherwise a GPU if there is one.

    Raises:
        GlinerkoError: This machine has no such device.
    """
    if requested is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.ones(1, device=requested).item()
    except Exception as error:  # each backend raises its own
        raise GlinerkoError(f"--device {requested}: cannot be used here ({first_line(error)})") from error
    return torch.device(requested)


def predict(args: Arguments, rows: Dataset) -> Iterator[dict]:
    """Each document with its entities."""
    model = load_extractor(args.model, map_location=choose_device(args.device))
    trained = model.label_schema
    if trained is None and not args.labels:
        raise DataError(f"{args.model}: the model names no labels: pass --labels")
    schema = LabelSchema(tuple(args.labels or trained.labels), trained.descriptions if trained else {})
    threshold = model.choose_threshold() if args.threshold is None else args.threshold

    predictions = predict_spans(
        model,
        model.split(rows, schema),
        schema,
        batch_size=args.batch_size,
        floor=threshold,
        progress=lambda batches: tqdm(batches, desc="Predicting", unit="batch", leave=False, disable=None),
    )
    for identifier, text, spans in zip(rows["id"], rows["text"], predictions.at_threshold(threshold), strict=True):
        entities = [
            {
                "start": s.start,
                "end": s.end,
                "label": s.label,
                "text": text[s.start : s.end],
                "score": round(s.score, 4),
            }
            for s in spans
        ]
        yield {"id": identifier, "text": text, "entities": entities}


if __name__ == "__main__":
    run(main)
