"""Speed of one inference pass for all thresholds, compared with gliner2, which needs one pass for each threshold.

    python benchmarks/eval_sweep.py --model outputs/demo/best
    python benchmarks/eval_sweep.py --model outputs/medical/best --test_file test.jsonl --max_documents 20

gliner2 predicts document by document (`extract_entities`) and in batches (`batch_extract_entities`). All ways use the
same model, documents, words and thresholds, take turns in one run, and must predict the same spans.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from gliner2 import GLiNER2
from tqdm import tqdm

from glinerko.cli import make_console, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, write_json
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.schema import LabelSchema
from glinerko.hub import fetch
from glinerko.model.extractor import KoreanExtractor, load_extractor
from glinerko.model.prediction import predict_spans
from glinerko.scoring.metrics import THRESHOLDS

SAMPLE = Path(__file__).parents[1] / "data" / "sample"

SpansByThreshold = dict[float, list[set[tuple[int, int, str]]]]
"""For each threshold the spans of each document: start, end, label."""


@dataclass
class Arguments:
    model: str = field(metadata={"help": "Hub id or directory of the model"})
    test_file: str = field(default=str(SAMPLE / "test.jsonl"), metadata={"help": "documents, JSON lines"})
    max_documents: int = field(default=50, metadata={"help": "number of documents to use"})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "documents in a batch, for both packages"})
    rounds: int = field(default=3, metadata={"help": "number of times that each way is timed"})
    output_file: str = field(default="outputs/benchmarks/eval_sweep.json", metadata={"help": "file for the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    console = make_console()
    model = load_extractor(args.model)
    gliner2 = load_gliner2(args.model, model)
    rows, _ = load_rows(args.test_file, max_rows=args.max_documents)
    schema = model.label_schema or label_schema(rows)
    texts, size = rows["text"][:], args.per_device_eval_batch_size
    entities = schema.descriptions or list(schema.labels)

    def one_by_one(threshold: float) -> list[dict]:
        return [gliner2.extract_entities(text, entities, threshold=threshold, include_spans=True) for text in texts]

    def in_batches(threshold: float) -> list[dict]:
        options = {"batch_size": size, "include_spans": True}
        return gliner2.batch_extract_entities(texts, entities, threshold=threshold, **options)

    theirs = {"extract_entities": one_by_one, "batch_extract_entities": in_batches}
    ratios: dict[str, list[float]] = {name: [] for name in theirs}
    for _ in range(args.rounds):
        ours, seconds = timed(lambda: one_pass(model, rows, schema, size))
        for name, extract in theirs.items():
            spans, their_seconds = timed(lambda extract=extract: pass_per_threshold(extract, texts))
            ratios[name].append(their_seconds / seconds)
            if spans != ours:
                raise GlinerkoError(f"{name} of gliner2 and the single pass predict different spans")
    console.print(
        f"{len(texts)} documents, {len(THRESHOLDS)} thresholds, identical predictions, {torch.get_num_threads()} "
        f"threads, {args.rounds} rounds. Speed of the single pass, as a multiple of a pass for each threshold with"
    )
    for name, each in ratios.items():
        console.print(f"  {name:24} {median(each):6.1f}  ({min(each):.1f} – {max(each):.1f})", highlight=False)
    write_json(Path(args.output_file), {"ratios": ratios, "documents": len(texts), "thresholds": len(THRESHOLDS)})


def load_gliner2(name: str, ours: KoreanExtractor) -> GLiNER2:
    """The same model in gliner2 itself, with the same words, on the same device."""
    splitter = ours.processor.word_splitter
    return GLiNER2.from_pretrained(str(fetch(name)), word_splitter=splitter, map_location=ours.device).eval()


def timed(way: Callable[[], Any]) -> tuple[Any, float]:
    """What ``way`` returns, and the seconds it takes."""
    begin = time.perf_counter()
    result = way()
    return result, time.perf_counter() - begin


def one_pass(model: torch.nn.Module, rows: Dataset, schema: LabelSchema, batch_size: int) -> SpansByThreshold:
    """The spans at all thresholds, from one inference pass.

    Raises:
        GlinerkoError: a document does not fit in one window.
    """
    documents = model.split(rows, schema)
    if any(len(windows) > 1 for windows in documents["windows"]):
        raise GlinerkoError("a document is longer than a window, and gliner2 does not cut it: use shorter documents")
    predictions = predict_spans(model, documents, schema, batch_size=batch_size)
    return {
        threshold: [{span.key for span in spans} for spans in predictions.at_threshold(threshold)]
        for threshold in THRESHOLDS
    }


def pass_per_threshold(extract: Callable[[float], list[dict]], texts: list[str]) -> SpansByThreshold:
    """The spans at all thresholds, from one call of ``extract`` for each threshold."""
    return {
        threshold: [spans_in(result, text) for result, text in zip(extract(threshold), texts, strict=True)]
        for threshold in tqdm(THRESHOLDS, desc="A pass per threshold", leave=False, disable=None)
    }


def spans_in(result: dict, text: str) -> set[tuple[int, int, str]]:
    """The spans of gliner2's result that lie in ``text``: gliner2 adds a full stop, which can be predicted too."""
    spans = ((e["start"], e["end"], label) for label, entities in result["entities"].items() for e in entities)
    return {span for span in spans if span[1] <= len(text)}


if __name__ == "__main__":
    run(main)
