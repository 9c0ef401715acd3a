"""Documents a second of the Korean word splitter, next to white space and to Kiwi one document at a time.

    python benchmarks/split_words.py
    python benchmarks/split_words.py --data_file train.jsonl

All ways are timed turn about in one run, on the same texts. `kiwi` is Kiwi as it comes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from kiwipiepy import Kiwi

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import load_rows
from glinerko.files import write_json
from glinerko.words import load_word_splitter, split_batch

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
BASELINE = "kiwi, one by one"


@dataclass
class Arguments:
    data_file: str = field(default=str(SAMPLE / "train.jsonl"), metadata={"help": "documents, JSON lines"})
    rounds: int = field(default=5, metadata={"help": "how often each way is timed"})
    output_file: str = field(default="outputs/benchmarks/split_words.json", metadata={"help": "where the figures go"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    texts = load_rows(args.data_file)[0]["text"][:]
    plain = Kiwi()
    korean, white_space = load_word_splitter("korean"), load_word_splitter("whitespace")
    ways = {
        BASELINE: lambda: [plain.tokenize(text) for text in texts],
        "korean, one by one": lambda: [korean.split(text) for text in texts],
        "korean": lambda: split_batch(korean, texts),
        "white space": lambda: split_batch(white_space, texts),
    }
    for load in (plain.tokenize, korean.split):  # before the clock runs
        load("")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    ratios = {
        name: [base / own for base, own in zip(seconds[BASELINE], times, strict=True)]
        for name, times in seconds.items()
    }
    console = make_console()
    console.print(
        f"{len(texts)} documents; speed as a multiple of {BASELINE}, median, lowest and highest of {args.rounds} rounds"
    )
    for name, found in ratios.items():
        console.print(f"  {name:28} {median(found):7.2f}  ({min(found):.2f} – {max(found):.2f})", highlight=False)
    write_json(Path(args.output_file), {"documents": len(texts), "ratios": ratios})


if __name__ == "__main__":
    run(main)
