"""What more documents cost in time and memory, from 1,000 to 100,000.

    python benchmarks/scale.py
    python benchmarks/scale.py --sizes 1000 10000

Each size is a run of the training script in a process of its own, on documents that the generator of the sample corpus
makes: reading, swap, words, windows, reports, a trial of everything, and a few steps. The documents are short.
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

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import load_rows
from glinerko.errors import GlinerkoError
from glinerko.files import write_json
from glinerko.starter import TINY, build_starter_pair

ROOT = Path(__file__).parents[1]


@dataclass
class Arguments:
    sizes: list[int] = field(default_factory=lambda: [1_000, 10_000, 100_000], metadata={"help": "documents"})
    steps: int = field(default=20, metadata={"help": "training steps of each run"})
    output_file: str = field(default="outputs/benchmarks/scale.json", metadata={"help": "where the figures go"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
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
            run_of = measure(files, pair, args.steps)
            figures.append({"documents": size, **run_of})
            console.print(
                f"{size:9,} documents: {run_of['seconds']:7.1f} s, at most {run_of['anonymous_memory_gb']:.2f} GB "
                "beside mapped files",
                highlight=False,
            )
    # The smallest run stands for what does not depend on the documents.
    for smaller, larger in pairwise(figures):
        more = larger["documents"] - smaller["documents"]
        larger["milliseconds_per_document"] = 1000 * (larger["seconds"] - smaller["seconds"]) / more
        larger["kilobytes_per_document"] = 1e6 * (larger["anonymous_memory_gb"] - smaller["anonymous_memory_gb"]) / more
        console.print(
            f"{smaller['documents']:,} to {larger['documents']:,}: {larger['milliseconds_per_document']:.2f} ms and "
            f"{larger['kilobytes_per_document']:.2f} kB for each document more",
            highlight=False,
        )
    write_json(Path(args.output_file), {"steps": args.steps, "runs": figures})


def measure(files: Path, pair: tuple[Path, Path], steps: int) -> dict[str, float]:
    """Seconds of a run of the training script from its start to its end, and its most anonymous memory.

    Raises:
        GlinerkoError: it failed.
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
    begin, most = time.perf_counter(), 0
    with (files / "log").open("w") as log:
        # A cache of its own, so that nothing is found there from a run before.
        process = psutil.Popen(
            [sys.executable, str(ROOT / "scripts" / "train_gliner2_korean_encoder.py"), *flags],
            stdout=log,
            stderr=log,
            env={**os.environ, "HF_DATASETS_CACHE": str(files / "cache")},
        )
        while process.poll() is None:
            memory = process.memory_info()
            most = max(most, memory.rss - memory.shared)
            time.sleep(0.1)
    if process.returncode:
        last = (files / "log").read_text(encoding="utf-8").splitlines()[-1]
        raise GlinerkoError(f"the run on {files.name} documents ended with status {process.returncode}: {last}")
    return {"seconds": time.perf_counter() - begin, "anonymous_memory_gb": most / 1e9}


if __name__ == "__main__":
    run(main)
