"""The sweep of all thresholds from one inference pass, next to a pass for each threshold and document.

    python benchmarks/eval_sweep.py --model outputs/demo/best
    python benchmarks/eval_sweep.py --model outputs/medical/best --test_file test.jsonl --max_documents 20

The same model, documents, words and thresholds, turn about in one run; both must predict the same spans.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import label_schema, load_rows
from glinerko.errors import GlinerkoError
from glinerko.files import write_json
from glinerko.hub import load_extractor
from glinerko.metrics import THRESHOLDS
from glinerko.prediction import predict_spans
from glinerko.targets import annotate

SAMPLE = Path(__file__).parents[1] / "data" / "sample"


@dataclass
class Arguments:
    model: str = field(metadata={"help": "Hub id or directory"})
    test_file: str = field(default=str(SAMPLE / "test.jsonl"), metadata={"help": "documents, JSON lines"})
    max_documents: int = field(default=50, metadata={"help": "how many of them"})
    rounds: int = field(default=2, metadata={"help": "how often both ways are timed, turn about"})
    output_file: str = field(default="outputs/benchmarks/eval_sweep.json", metadata={"help": "where the figures go"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    console = make_console()
    model = load_extractor(args.model)
    rows, _ = load_rows(args.test_file, max_rows=args.max_documents)
    schema = model.label_schema or label_schema(rows)
    texts = rows["text"][:]
    entities = model.create_schema().entities(schema.descriptions or list(schema.labels))

    def one_pass() -> dict[float, list[set]]:
        annotated = annotate(rows, model.processor, schema, max_width=model.max_width, **model.window_limits)
        if any(len(windows) > 1 for windows in annotated["windows"]):
            raise GlinerkoError("a document is longer than a window, which gliner2 does not cut: pass shorter ones")
        predictions = predict_spans(model, annotated, schema)
        found = {threshold: predictions.at_threshold(threshold) for threshold in THRESHOLDS}
        return {threshold: [{span.key for span in spans} for spans in each] for threshold, each in found.items()}

    def pass_per_threshold_and_document() -> dict[float, list[set]]:
        return {
            threshold: [
                _spans(model.extract(text, entities, threshold=threshold, include_spans=True), text) for text in texts
            ]
            for threshold in tqdm(THRESHOLDS, desc="A pass per threshold", leave=False, disable=None)
        }

    ratios = []
    for _ in range(args.rounds):
        seconds, found = [], []
        for way in (one_pass, pass_per_threshold_and_document):
            begin = time.perf_counter()
            found.append(way())
            seconds.append(time.perf_counter() - begin)
        if found[0] != found[1]:
            raise GlinerkoError("the two ways predict different spans")
        ratios.append(seconds[1] / seconds[0])
    spread = f"{min(ratios):.1f} – {max(ratios):.1f}"
    console.print(
        f"{len(texts)} documents, {len(THRESHOLDS)} thresholds, identical predictions: one pass is {spread} × as fast "
        f"({torch.get_num_threads()} threads)"
    )
    write_json(Path(args.output_file), {"ratios": ratios, "documents": len(texts), "thresholds": len(THRESHOLDS)})


def _spans(result: dict, text: str) -> set[tuple[int, int, str]]:
    found = ((e["start"], e["end"], label) for label, entities in result["entities"].items() for e in entities)
    return {span for span in found if span[1] <= len(text)}


if __name__ == "__main__":
    run(main)
