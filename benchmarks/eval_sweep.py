"""The sweep of all thresholds from one inference pass, next to gliner2's own passes, one for each threshold.

    python benchmarks/eval_sweep.py --model outputs/demo/best
    python benchmarks/eval_sweep.py --model outputs/medical/best --test_file test.jsonl --max_documents 20

gliner2 is asked document by document (`extract`) and in batches (`batch_extract_entities`). The same model, documents,
words and thresholds, turn about in one run; all must predict the same spans.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

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
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "documents in a batch, ours and gliner2's"})
    rounds: int = field(default=3, metadata={"help": "how often all ways are timed, turn about"})
    output_file: str = field(default="outputs/benchmarks/eval_sweep.json", metadata={"help": "where the figures go"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    console = make_console()
    model = load_extractor(args.model)
    rows, _ = load_rows(args.test_file, max_rows=args.max_documents)
    schema = model.label_schema or label_schema(rows)
    texts = rows["text"][:]
    entities = schema.descriptions or list(schema.labels)
    batches = {"batch_size": args.per_device_eval_batch_size, "include_spans": True}

    def one_pass() -> dict[float, list[set]]:
        annotated = annotate(rows, model.processor, schema, max_width=model.max_width, **model.window_limits)
        if any(len(windows) > 1 for windows in annotated["windows"]):
            raise GlinerkoError("a document is longer than a window, which gliner2 does not cut: pass shorter ones")
        predictions = predict_spans(model, annotated, schema, batch_size=args.per_device_eval_batch_size)
        found = {threshold: predictions.at_threshold(threshold) for threshold in THRESHOLDS}
        return {threshold: [{span.key for span in spans} for spans in each] for threshold, each in found.items()}

    def pass_per_threshold(extract: Callable[[float], list[dict]]) -> dict[float, list[set]]:
        return {
            threshold: [_spans(found, text) for found, text in zip(extract(threshold), texts, strict=True)]
            for threshold in tqdm(THRESHOLDS, desc="A pass per threshold", leave=False, disable=None)
        }

    def one_by_one(threshold: float) -> list[dict]:
        return [model.extract_entities(text, entities, threshold=threshold, include_spans=True) for text in texts]

    def in_batches(threshold: float) -> list[dict]:
        return model.batch_extract_entities(texts, entities, threshold=threshold, **batches)

    theirs = {"extract_entities": one_by_one, "batch_extract_entities": in_batches}
    ratios: dict[str, list[float]] = {name: [] for name in theirs}
    for _ in range(args.rounds):
        begin = time.perf_counter()
        ours = one_pass()
        seconds = time.perf_counter() - begin
        for name, extract in theirs.items():
            begin = time.perf_counter()
            found = pass_per_threshold(extract)
            ratios[name].append((time.perf_counter() - begin) / seconds)
            if found != ours:
                raise GlinerkoError(f"{name} of gliner2 and the one pass predict different spans")
    console.print(
        f"{len(texts)} documents, {len(THRESHOLDS)} thresholds, identical predictions, {torch.get_num_threads()} "
        f"threads, {args.rounds} rounds: one pass is as many times as fast as a pass per threshold with"
    )
    for name, each in ratios.items():
        console.print(f"  {name:24} {median(each):6.1f}  ({min(each):.1f} – {max(each):.1f})", highlight=False)
    write_json(Path(args.output_file), {"ratios": ratios, "documents": len(texts), "thresholds": len(THRESHOLDS)})


def _spans(result: dict, text: str) -> set[tuple[int, int, str]]:
    found = ((e["start"], e["end"], label) for label, entities in result["entities"].items() for e in entities)
    return {span for span in found if span[1] <= len(text)}


if __name__ == "__main__":
    run(main)
