"""Pre-training here and with Transformers' own script, on the same text with the same model, in turns.

    python benchmarks/pretrain_throughput.py --text_file law.txt --run_mlm run_mlm_no_trainer.py
    python benchmarks/pretrain_throughput.py --text_file law.txt --megabytes 1 10 100 1000

The first command takes examples/pytorch/language-modeling/run_mlm_no_trainer.py of the transformers repository. Both
scripts run for --steps and for twice as many steps; the difference of the two is the time of the steps alone.

The second one prepares texts of several sizes (the file over and over, with a number before each line, so that
no line is a duplicate) and prints the peak memory of all its processes together, and the seconds for a million pieces.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, DebertaV2ForMaskedLM, PreTrainedTokenizerFast

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import DataError, read_lines, write_json
from glinerko.corpus.matching import without_spaces
from glinerko.sharing.tables import plain_table
from glinerko.training.pretraining import MaskedLanguageModel, encoder_config, save_encoder
from glinerko.training.speed import score_fewer_positions
from glinerko.training.texts import SPECIAL_TOKENS, word_piece_tokenizer

ROOT = Path(__file__).parents[1]
OURS, CONFIG = ROOT / "scripts" / "pretrain_encoder.py", ROOT / "accelerate_configs" / "cpu_multi.yaml"
BATCH, LENGTH, MASKED, LINES_FOR_VOCABULARY = 8, 256, 0.15, 20_000


@dataclass
class Arguments:
    text_file: str = option(help="text, a document a line")
    run_mlm: str | None = option(None, "run_mlm_no_trainer.py, to compare with")
    megabytes: list[int] | None = option(None, "sizes of text to prepare, in millions of bytes")
    processes: int = option(2, "processes of the training, with one thread each", at_least=1)
    mixed_precision: str = option("no", "precision of both", choices=["no", "bf16"])
    steps: int = option(20, "steps of the shorter run", at_least=1)
    rounds: int = option(3, "rounds", at_least=1)
    output_dir: str = option("outputs/benchmarks/pretrain_throughput", "directory for models, texts and figures")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    directory = Path(args.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    start = directory / "start"
    make_start(args.text_file, start)
    console = make_console()
    if args.run_mlm:
        compare(args, start, directory, console)
    for size in args.megabytes or ():
        peak, seconds, pieces = prepare(args, size, start, directory)
        console.print(f"{size:,} MB: {peak / 1e9:.2f} GB, {pieces / 1e6:.1f} million pieces, "
                      f"{seconds / pieces * 1e6:.2f} s a million")  # fmt: skip
        write_json(directory / f"{size}.json", {"peak": peak, "seconds": seconds, "pieces": pieces})


def make_start(text_file: str, start: Path) -> None:
    """A small masked language model with random weights, and a vocabulary of the text."""
    texts = islice(read_lines(text_file), LINES_FOR_VOCABULARY)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_piece_tokenizer(texts, 8000, 3), model_max_length=512, **SPECIAL_TOKENS
    )
    save_encoder(DebertaV2ForMaskedLM(encoder_config(256, 4, len(tokenizer))), tokenizer, start)


def compare(args: Arguments, start: Path, directory: Path, console) -> None:
    """Seconds a step of both scripts, and how many times as fast ours is."""
    texts = {}
    for times in (1, 2):
        texts[times] = directory / f"text-{times}.txt"
        write_pieces(args, start, texts[times], times * args.steps * args.processes * BATCH)
    ways = {"ours": ours, "run_mlm_no_trainer.py": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.rounds):
        for name in ways if turn % 2 else reversed(ways):
            short, long = (ways[name](args, start, texts[times], times, directory) for times in (1, 2))
            seconds[name].append((long - short) / args.steps)
    ratios = [other / own for own, other in zip(*seconds.values(), strict=True)]
    shown = plain_table("Pre-training", "", "s a step", "pieces a second")
    for name, taken in seconds.items():
        pieces = BATCH * LENGTH * args.processes / median(taken)
        shown.add_row(name, f"{median(taken):.2f}", f"{pieces:,.0f}")
    console.print(shown)
    own, other = count_operations(start)
    console.print(
        f"{median(ratios):.2f} × as fast ({min(ratios):.2f} – {max(ratios):.2f}); a step of the other script has "
        f"{other / own:.2f} × as many operations"
    )
    figures = {"seconds": seconds, "ratios": ratios, "precision": args.mixed_precision, "operations": [own, other]}
    write_json(directory / "figures.json", figures)


def count_operations(start: Path) -> tuple[int, int]:
    """The floating-point operations of a step here and in Transformers' script, with eager attention."""
    model = DebertaV2ForMaskedLM.from_pretrained(start)
    ids = torch.randint(len(SPECIAL_TOKENS), model.config.vocab_size, (BATCH, LENGTH))
    labels = ids.masked_fill(torch.rand(ids.shape) > MASKED, -100)
    with FlopCounterMode(display=False) as theirs:
        model(ids, labels=labels).loss.backward()
    score_fewer_positions(model.deberta, LENGTH)
    with FlopCounterMode(display=False) as own:
        MaskedLanguageModel(model)(ids, torch.ones_like(ids), labels)[0].backward()
    return own.get_total_flops(), theirs.get_total_flops()


def write_pieces(args: Arguments, start: Path, file: Path, rows: int) -> None:
    """As many different lines of the text as fill so many rows, and some for validation."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    wanted, lines = (rows + 2 * BATCH) * LENGTH, {}
    for line in read_lines(args.text_file):
        bare = without_spaces(line)
        if bare and bare not in lines:  # pretrain_encoder.py reads a line once
            lines[bare] = line
            wanted -= len(tokenizer.tokenize(line)) + 1
        if wanted <= 0:
            file.write_text("\n".join(lines.values()), encoding="utf-8")
            return
    raise DataError(f"{args.text_file}: too little text for {rows} rows")


def ours(args: Arguments, start: Path, text: Path, times: int, directory: Path) -> float:
    options = {
        "init_from": start, "train_file": text, "num_train_epochs": 1, "per_device_train_batch_size": BATCH,
        "max_length": LENGTH, "validation_split": 0.001, "output_dir": directory / "ours",
    }  # fmt: skip
    return launch(args, OURS, options, "--overwrite_output_dir")


def theirs(args: Arguments, start: Path, text: Path, times: int, directory: Path) -> float:
    options = {
        "model_name_or_path": start, "train_file": text, "validation_file": directory / "few.txt",
        "max_train_steps": times * args.steps, "per_device_train_batch_size": BATCH, "max_seq_length": LENGTH,
        "output_dir": directory / "theirs",
    }  # fmt: skip
    (directory / "few.txt").write_text("\n".join(text.read_text(encoding="utf-8").splitlines()[:40]), encoding="utf-8")
    return launch(args, Path(args.run_mlm), options)


def launch(args: Arguments, script: Path, options: dict[str, object], *flags: str) -> float:
    """The seconds of a run."""
    command = ["accelerate", "launch", "--config_file", CONFIG, "--num_processes", args.processes,
               "--mixed_precision", args.mixed_precision, script, *flags]  # fmt: skip
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    begin = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise DataError(f"{script.name} failed: {done.stderr[-2000:]}")
    return time.monotonic() - begin


def prepare(args: Arguments, megabytes: int, start: Path, directory: Path) -> tuple[int, float, int]:
    """Prepare a text of this size: the bytes of memory at the peak, the seconds, the number of pieces."""
    file, left = directory / f"{megabytes}.txt", megabytes * 1_000_000
    if not any(read_lines(args.text_file)):
        raise DataError(f"{args.text_file}: no text")
    lines = (f"{copy} {line}\n".encode() for copy in count() for line in read_lines(args.text_file))
    with file.open("wb") as text:
        while left > 0:
            left -= text.write(next(lines))
    program = (
        "import sys; from glinerko.training.texts import load_documents, pack_texts, choose_validation;"
        "from transformers import AutoTokenizer;"
        "documents, _ = load_documents(sys.argv[2:]); drawn = choose_validation(documents, .001, 2000, 1);"
        "print(len(pack_texts(documents, AutoTokenizer.from_pretrained(sys.argv[1]), 256, drawn)))"
    )
    begin = time.monotonic()
    with TemporaryDirectory(dir=directory) as cache, (directory / f"{megabytes}.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(start), str(file)], stdout=subprocess.PIPE, stderr=log,
            env={**os.environ, "HF_DATASETS_CACHE": cache},
        )  # fmt: skip
        peak = watch(process)
        if process.returncode:
            raise DataError(f"the preparation failed: see {log.name}")
    rows = int(process.stdout.read().split()[-1])
    return peak, time.monotonic() - begin, rows * LENGTH


def watch(process: subprocess.Popen) -> int:
    """The peak of the memory that a process and its children have for themselves, in bytes; until it ends.

    Pages of a mapped file do not count: they are the system's cache of the file, which it empties when it needs memory.
    """
    peak, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            processes = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(part.private_dirty for each in processes for part in each.memory_maps()))
        time.sleep(0.2)
    return peak


if __name__ == "__main__":
    run(main)
