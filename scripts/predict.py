"""Extract entities from Korean text: text in, one JSON object a document out.

    python scripts/predict.py --model user/model --text "당뇨병으로 메트포르민을 투여함"
    python scripts/predict.py --model outputs/medical/best --input_file notes.jsonl --output_file spans.jsonl
    cat notes.txt | python scripts/predict.py --model outputs/medical/best

An input file is JSON lines with a "text" (and an "id"), or plain text with one document a line; standard input is read
if neither is given. Documents are cut into the windows of training. Labels, descriptions and threshold are those saved
with the model. Output: {"id", "text", "entities": [{"start", "end", "label", "text",
"score"}]}, offsets in characters, end exclusive.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from tqdm import tqdm

from glinerko.cli import option, parse_arguments, run, set_log_levels
from glinerko.common import DataError
from glinerko.corpus.reading import read_texts, rows_from_texts
from glinerko.corpus.rows import LabelSchema
from glinerko.model.extractor import load_extractor
from glinerko.scoring.prediction import predict_spans


@dataclass
class Arguments:
    model: str = option(help="model: Hub id or directory")
    text: list[str] | None = option(None, "one document, or several")
    input_file: str | None = option(None, "JSON lines (*.jsonl), or one document a line (default: standard input)")
    output_file: str | None = option(None, "JSON lines to write (default: standard output)")
    labels: list[str] | None = option(None, "labels to extract (default: the model's own)")
    threshold: float | None = option(None, "lowest score of a span (default: the one saved with the model)")
    batch_size: int = option(16, "windows per batch")
    device: str | None = option(None, "device: cpu, cuda, mps ... (default: a GPU if there is one)")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    if args.text:
        ids, texts = [str(number) for number in range(1, len(args.text) + 1)], args.text
    else:
        ids, texts = read_texts(args.input_file)
    with ExitStack() as opened:
        file = sys.stdout
        if args.output_file:
            try:  # before anything is computed
                file = opened.enter_context(open(args.output_file, "w", encoding="utf-8"))
            except OSError as error:
                raise DataError(f"{args.output_file}: cannot be written ({error.strerror})") from error
        for document in predict(args, ids, texts):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    if args.output_file:
        print(f"{len(texts)} documents to {args.output_file}", file=sys.stderr)


def predict(args: Arguments, ids: list[str], texts: list[str]) -> Iterator[dict]:
    """Each document with its entities."""
    device = args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    model = load_extractor(args.model, map_location=device)
    trained = model.label_schema
    if trained is None and not args.labels:
        raise DataError(f"{args.model}: the model names no labels: pass --labels")
    schema = LabelSchema(tuple(args.labels or trained.labels), trained.descriptions if trained else {})
    threshold = model.choose_threshold(args.threshold)

    predictions = predict_spans(
        model,
        model.split(rows_from_texts(texts, ids), schema),
        schema,
        batch_size=args.batch_size,
        floor=threshold,
        progress=lambda batches: tqdm(batches, desc="Predicting", unit="batch", leave=False, disable=None),
    )
    for identifier, text, spans in zip(ids, texts, predictions.at_threshold(threshold), strict=True):
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
