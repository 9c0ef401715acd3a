"""Speed of reading documents, compared with gliner2 on the same weights, words and threshold.

    python benchmarks/predict_throughput.py --model outputs/medical/best --data_file train.jsonl
    python benchmarks/predict_throughput.py --model outputs/medical/best --data_file train.jsonl --sentences

The ways take turns in one run: ours, as `predict.py` reads; the batches of gliner2; gliner2 on one document at a time.
In float32 all must find the same spans in documents that fit in one window. Of longer documents the spans in common are
counted: gliner2 reads each of them as one sequence, or in windows of 384 words (`batch_extract_entities_long`). Before
that, ours reads one text of 2,000, 20,000 and 200,000 characters, and the peak memory of the process is told.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path
from statistics import median

import torch
from datasets import Dataset
from eval_sweep import SAMPLE, load_gliner2, spans_in, timed
from rich.console import Console
from tqdm import tqdm

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, write_json
from glinerko.corpus.reading import read_texts
from glinerko.model.attention import read_faster
from glinerko.model.extractor import KoreanExtractor, load_extractor

Spans = list[set[tuple[int, int, str]]]


@dataclass
class Arguments:
    model: str = option(help="model: Hub id or directory")
    data_file: str = option(str(SAMPLE / "test.jsonl"), "documents, JSON lines or plain text")
    sentences: bool = option(False, "the sentences of the documents instead of the documents")
    max_documents: int = option(200, "number of documents to use", at_least=1)
    batch_size: int = option(8, "documents or windows in a batch, for both packages", at_least=1)
    dtype: str = option("float32", "data type of the weights", choices=("float32", "bfloat16"))
    rounds: int = option(3, "number of times that each way is timed", at_least=1)
    output_file: str = option("outputs/benchmarks/predict_throughput.json", "file for the figures")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    console = make_console()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    ours = load_extractor(args.model, map_location=device).to(getattr(torch, args.dtype))
    theirs = load_gliner2(args.model, ours).to(ours.dtype)
    read_faster(ours)
    labels = ours.label_schema.descriptions or list(ours.label_schema.labels)
    options = {"include_spans": True, "threshold": ours.choose_threshold()}

    texts = [text for _, text in read_texts(args.data_file)]
    if args.sentences:
        texts = [part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+|\n", text) if part.strip()]
    # gliner2 adds a full stop to other texts, and may find it.
    texts = [text if text.endswith((".", "!", "?")) else f"{text}." for text in texts[: args.max_documents]]
    rows = ours.split(Dataset.from_dict({"text": texts}))
    windows = [len(each) for each in rows["windows"]]
    groups = {
        "one window": [text for text, number in zip(texts, windows, strict=True) if number == 1],
        "several windows": [text for text, number in zip(texts, windows, strict=True) if number > 1],
    }
    figures: dict[str, object] = {"device": str(device), "threads": torch.get_num_threads(), "dtype": args.dtype}
    console.print(
        f"{device}, {torch.get_num_threads()} threads, {args.dtype}, batches of {args.batch_size}, {args.rounds} rounds"
    )
    figures["memory"] = memory(ours, texts)  # first: the peak of the process is never lowered
    for size, peak in figures["memory"].items():
        console.print(f"one text of {size:,} characters: a peak of {peak:,} MB", highlight=False)
    for name, group in groups.items():
        if not group:
            continue
        ways: dict[str, Callable[[Sequence[str]], list[dict]]] = {
            "ours": lambda some: ours.batch_extract_entities(some, labels, args.batch_size, **options),
            "batches": lambda some: theirs.batch_extract_entities(some, labels, args.batch_size, **options),
            "one by one": lambda some: [theirs.extract_entities(text, labels, **options) for text in some],
        }
        if name == "several windows":
            ways["windows of 384 words"] = lambda some: theirs.batch_extract_entities_long(
                some, labels, args.batch_size, **options
            )
        seconds, spans = take_turns(ways, group, args.rounds)
        same = {way: sum(map(len, map(set.__and__, spans["ours"], each))) for way, each in spans.items()}
        if name == "one window" and args.dtype == "float32" and any(each != spans["ours"] for each in spans.values()):
            raise GlinerkoError(f"the ways find different spans; in common with ours: {same}")
        console.print(f"{len(group)} documents of {name}; spans in common with ours: {same}", highlight=False)
        figures[name] = {"documents": len(group), "in_common": same, "seconds": seconds}
        show_ratios(console, seconds)
    both = [figures[name]["seconds"] for name in groups if name in figures]
    if len(both) == 2:
        console.print(f"all {len(texts)} documents")
        show_ratios(console, {way: list(map(add, each, both[1][way])) for way, each in both[0].items()})
    write_json(Path(args.output_file), figures)
    console.print(f"Figures: {args.output_file}")


def memory(model: KoreanExtractor, texts: Sequence[str]) -> dict[int, int]:
    """The peak memory of this process in MB after it has read one text of so many characters, made of ``texts``."""
    text, peaks = " ".join(texts), {}
    for size in (2_000, 20_000, 200_000):
        model.extract_entities((text * (size // len(text) + 1))[:size])
        peaks[size] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return peaks


def show_ratios(console: Console, seconds: dict[str, list[float]]) -> None:
    """Print how many times as fast as each other way ours is."""
    for way, others in seconds.items():
        ratios = [other / own for own, other in zip(seconds["ours"], others, strict=True)]
        if way != "ours":
            console.print(f"  as fast as {way:22} {median(ratios):6.2f} × ({min(ratios):.2f} – {max(ratios):.2f})")


def take_turns(
    ways: dict[str, Callable[[Sequence[str]], list[dict]]], texts: Sequence[str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Spans]]:
    """The seconds of each round, after one on a few texts that does not count, and the spans of each text."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    spans: dict[str, Spans] = {}
    for extract in ways.values():
        extract(texts[:8])
    for _ in tqdm(range(rounds), desc="Rounds", leave=False, disable=None):
        for way, extract in ways.items():
            results, taken = timed(lambda extract=extract: extract(texts))
            seconds[way].append(taken)
            spans[way] = [spans_in(result, text) for result, text in zip(results, texts, strict=True)]
    return seconds, spans


if __name__ == "__main__":
    run(main)
