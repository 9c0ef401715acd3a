"""Time and memory of the training script for 1,000 to 100,000 documents.

    python benchmarks/scale.py
    python benchmarks/scale.py --sizes 1000 10000

Each size is one run of the training script in a new process: it reads the documents, swaps the encoder, makes words and
windows, writes reports, tries every stage once, and trains a few steps. The documents are short; the generator of the
sample corpus makes them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from glinerko.cli import make_console, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, write_json
from glinerko.corpus.reading import load_rows
from glinerko.training.starter import TINY, build_starter_pair

ROOT = Path(__file__).parents[1]


@dataclass
class Arguments:
    sizes: list[int] = field(
        default_factory=lambda: [1_000, 10_000, 100_000], metadata={"help": "numbers of documents, one for each run"}
    )
    steps: int = field(default=20, metadata={"help": "training steps of each run"})
    output_file: str = field(default="outputs/benchmarks/scale.json", metadata={"help": "file for the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    console = make_console()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows, _ = load_rows(str(ROOT / "data" / "sample" / "train.jsonl"))
        pair = build_starter_pair(rows, directory / "pair", TINY)
        for size in args.sizes:
            files = directory / f"{size}"
            command = [sys.executable, ROOT / "data/sample/make_sample.py", "--train", size, "--output_dir", files]
            subprocess.run([*map(str, command)], check=True, capture_output=True)
            measured = measure(files, pair, args.steps)
            figures.append({"documents": size, **measured})
            console.print(
                f"{size:9,} documents: {measured['seconds']:7.1f} s, at most {measured['anonymous_memory_gb']:.2f} GB "
                "without mapped files",
                highlight=False,
            )
    # The difference between two sizes leaves out what does not depend on the number of documents.
    for smaller, larger in pairwise(figures):
        more = larger["documents"] - smaller["documents"]
        larger["milliseconds_per_document"] = 1000 * (larger["seconds"] - smaller["seconds"]) / more
        larger["kilobytes_per_document"] = 1e6 * (larger["anonymous_memory_gb"] - smaller["anonymous_memory_gb"]) / more
        console.print(
            f"{smaller['documents']:,} to {larger['documents']:,}: {larger['milliseconds_per_document']:.2f} ms and "
            f"{larger['kilobytes_per_document']:.2f} kB for each further document",
            highlight=False,
        )
    write_json(Path(args.output_file), {"steps": args.steps, "runs": figures})


def measure(files: Path, pair: tuple[Path, Path], steps: int) -> dict[str, float]:
    """The seconds that a run of the training script takes, and its peak of anonymous memory.

    Raises:
        GlinerkoError: the run failed.
    """
    options = {
        "base_model": pair[0],
        "korean_encoder": pair[1],
        "train_file": files / "train.jsonl",
        "validation_file": files / "validation.jsonl",
        "output_dir": files / "run",
        "max_train_steps": steps,
        "checkpointing_steps": "no",
    }
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    begin, peak = time.perf_counter(), 0
    with (files / "log").open("w") as log:
        process = psutil.Popen(
            [sys.executable, str(ROOT / "scripts" / "train_gliner2_korean_encoder.py"), *flags],
            stdout=log,
            stderr=log,
            env={**os.environ, "HF_DATASETS_CACHE": str(files / "cache")},  # empty: earlier runs must not save time
        )
        while process.poll() is None:
            memory = process.memory_info()
            peak = max(peak, memory.rss - memory.shared)
            time.sleep(0.1)
    if process.returncode:
        last = (files / "log").read_text(encoding="utf-8").splitlines()[-1]
        raise GlinerkoError(f"the run on {files.name} documents ended with status {process.returncode}: {last}")
    return {"seconds": time.perf_counter() - begin, "anonymous_memory_gb": peak / 1e9}


if __name__ == "__main__":
    run(main)
