"""Speed of the Korean word splitter, compared with white space and with Kiwi on one document at a time.

    python benchmarks/split_words.py
    python benchmarks/split_words.py --data_file train.jsonl

All ways split the same texts and take turns in one run. `kiwi` is Kiwi with its default settings.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from kiwipiepy import Kiwi

from glinerko.cli import make_console, parse_arguments, run, set_log_levels
from glinerko.common import write_json
from glinerko.corpus.reading import load_rows
from glinerko.corpus.words import load_word_splitter

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
BASELINE = "kiwi, one by one"


@dataclass
class Arguments:
    data_file: str = field(default=str(SAMPLE / "train.jsonl"), metadata={"help": "documents, JSON lines"})
    rounds: int = field(default=5, metadata={"help": "number of times that each way is timed"})
    output_file: str = field(default="outputs/benchmarks/split_words.json", metadata={"help": "file for the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    texts = load_rows(args.data_file)[0]["text"][:]
    plain = Kiwi()
    korean, white_space = load_word_splitter("korean"), load_word_splitter("whitespace")
    ways = {
        BASELINE: lambda: [plain.tokenize(text) for text in texts],
        "korean, one by one": lambda: [korean.split(text) for text in texts],
        "korean": lambda: korean.split_batch(texts),
        "white space": lambda: white_space.split_batch(texts),
    }
    for load in (plain.tokenize, korean.split):  # the first call loads the model: do not time it
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
        f"{len(texts)} documents; speed as a multiple of {BASELINE}: median, lowest and highest of {args.rounds} rounds"
    )
    for name, each in ratios.items():
        console.print(f"  {name:28} {median(each):7.2f}  ({min(each):.2f} – {max(each):.2f})", highlight=False)
    write_json(Path(args.output_file), {"documents": len(texts), "ratios": ratios})


if __name__ == "__main__":
    run(main)
