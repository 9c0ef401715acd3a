"""Cross-validate a recipe: for each fold of a corpus, train on the others and score on that one.

    python scripts/cross_validate.py recipes/real_corpus.yaml --train_file train.jsonl --text_file notes.txt
    python scripts/cross_validate.py recipes/real_corpus.yaml --train_file train.jsonl --name whitespace \\
        --compare default -- --word_splitter whitespace

A recipe is a YAML list of stages, each the name of a script of ours and its options; in a value, {fold} stands for the
directory of the fold, {train} for its training documents, {dev} for its held-out ones, {text} and {related} for the
files of --text_file and --related_file, {shared} for a directory of all folds. The first stages that name nothing of a
fold are done once for all. Flags after -- go to the last stage, the training, whose output is OUTPUT_DIR/fold-N/NAME.
A stage that was done with the same options is not done again, and one that was interrupted goes on, so that variants
share what comes before the training. --jobs does several folds at a time, each with its share of the cores: on a CPU
that is faster than one after the other. Threshold and epoch are chosen on validation documents drawn from the training
side of each fold. The scores are those of all folds' held-out documents together, with 95 % bootstrap intervals over
documents.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from datasets import concatenate_datasets

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import fold_rows, load_rows, write_rows
from glinerko.errors import DataError, GlinerkoError, first_line
from glinerko.files import file_digest, write_json
from glinerko.metrics import METRICS, Scores, compare_scores
from glinerko.reports import comparison_table, score_table

SCRIPTS = Path(__file__).parent
OF_A_FOLD = ("{fold}", "{train}", "{dev}")


@dataclass
class Arguments:
    train_file: str = field(metadata={"help": "the labelled documents, JSON lines"})
    text_file: list[str] = field(
        default_factory=list, metadata={"help": "raw text to pre-train on, beside or before the training documents"}
    )
    related_file: list[str] = field(
        default_factory=list, metadata={"help": "documents with other labels, for a recipe that trains on them first"}
    )
    output_dir: str = field(default="outputs/cross-validation", metadata={"help": "where everything goes"})
    name: str = field(default="default", metadata={"help": "of this variant of the recipe"})
    compare: list[str] | None = field(default=None, metadata={"help": "variants to compare with, done before"})
    folds: int = field(default=5, metadata={"help": "parts of the corpus; identical texts stay together"})
    only: list[int] | None = field(default=None, metadata={"help": "folds to do, from 0; all by default"})
    jobs: int = field(default=1, metadata={"help": "folds at a time, each with its share of the cores"})
    seed: int = field(default=42, metadata={"help": "of the folds"})
    metric: str = field(default="string_f1", metadata={"help": "what is compared", "choices": list(METRICS)})


def main() -> None:
    recipe_file, more = take_recipe()
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=True)
    console = make_console()
    stages = read_recipe(recipe_file)
    for file in (*args.text_file, *args.related_file):
        if not Path(file).is_file():
            raise DataError(f"{file}: no such file")
    directory = Path(args.output_dir)
    rows, _ = load_rows(args.train_file)
    parts = fold_rows(rows, args.folds, args.seed)
    chosen = args.only if args.only is not None else list(range(args.folds))
    if not set(chosen) <= set(range(args.folds)):
        raise DataError(f"--only: the folds are 0 to {args.folds - 1}")

    common = Pipeline(
        {"{shared}": [str(directory / "shared")], "{text}": args.text_file, "{related}": args.related_file},
        [file_digest(Path(file)) for file in (*args.text_file, *args.related_file)],
    )
    shared = list(takewhile(lambda stage: not any(place in str(stage[1]) for place in OF_A_FOLD), stages[:-1]))
    for script, options in shared:
        common.run(script, options)

    def do_fold(number: int) -> None:
        fold = directory / f"fold-{number}"
        train, dev = fold / "train.jsonl", fold / "dev.jsonl"
        write_rows(concatenate_datasets([part for index, part in enumerate(parts) if index != number]), train)
        write_rows(parts[number], dev)
        places = {**common.places, "{fold}": [str(fold)], "{train}": [str(train)], "{dev}": [str(dev)]}
        log = fold / f"{args.name}.log" if args.jobs > 1 else None
        pipeline = Pipeline(places, [*common.done, file_digest(train), file_digest(dev)], log, args.jobs)
        *before, (script, options) = stages[len(shared) :]
        for stage in before:
            pipeline.run(*stage)
        pipeline.run(script, {**options, "output_dir": fold / args.name}, more)
        model, report = fold / args.name / "best", fold / args.name / "dev"
        scored = {"model": model, "test_file": dev, "train_file": train, "metric": args.metric, "report_dir": report}
        pipeline.run("eval", scored)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(do_fold, chosen))

    names = (args.name, *(args.compare or ()))
    variants = [pool_scores(directory, name, chosen, args.metric) for name in names]
    title = f"{args.name}, {args.metric} on {len(variants[0].counts)} held-out documents of {len(chosen)} folds"
    console.print(score_table(title, {args.metric: variants[0]}, list(variants[0].labels)))
    compared = compare_scores([(name, None, scores) for name, scores in zip(names, variants, strict=True)])
    console.print(comparison_table(compared, args.metric))
    result = {"recipe": str(recipe_file), "flags": more, "folds": chosen, "seed": args.seed}
    write_json(directory / f"{args.name}.json", {**result, **variants[0].to_dict(), "comparisons": compared})
    console.print(f"Scores   {directory / args.name}.json", highlight=False)


def take_recipe() -> tuple[Path, list[str]]:
    """Take the recipe's file and what stands after ``--`` out of the command line.

    Raises:
        GlinerkoError: no recipe is named.
    """
    flags = sys.argv[1:]
    cut = flags.index("--") if "--" in flags else len(flags)
    own, more = flags[:cut], flags[cut + 1 :]
    if {"-h", "--help"} & set(own):
        return Path(), []
    if not own or own[0].startswith("-"):
        raise GlinerkoError("name a recipe first, for example recipes/real_corpus.yaml")
    sys.argv[1:] = own[1:]
    return Path(own[0]), more


def read_recipe(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The stages in their order: the name of a script, and its options.

    Raises:
        GlinerkoError: it cannot be read, or names no script of ours.
    """
    try:
        stages = [stage for entry in yaml.safe_load(path.read_text(encoding="utf-8")) for stage in entry.items()]
        if not all(isinstance(options, dict) for _, options in stages):
            raise ValueError("a stage has no options")
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise GlinerkoError(f"{path}: expected a list of `script: {{option: value}}` ({first_line(error)})") from error
    unknown = [script for script, _ in stages if not (SCRIPTS / f"{script}.py").is_file()]
    if unknown or not stages:
        raise GlinerkoError(f"{path}: no such script: {', '.join(unknown) or 'none is named'}")
    homeless = [script for script, options in stages[:-1] if "output_dir" not in options]
    if homeless:
        raise GlinerkoError(f"{path}: {homeless[0]} has no output_dir")
    return stages


@dataclass
class Pipeline:
    """Stages that are run one after the other.

    Args:
        places: What stands for what in a value; a place may stand for several files, or none.
        done: What was done so far: the digests of the files, and script and flags of each stage.
        log: Where the scripts write what they say; on the terminal otherwise.
        jobs: How many pipelines share the cores.
    """

    places: dict[str, list[str]]
    done: list[Any]
    log: Path | None = None
    jobs: int = 1

    def run(self, script: str, options: dict[str, Any], more: Sequence[str] = ()) -> None:
        """Run a script with its options unless that was done; what is done is remembered beside its output.

        Raises:
            GlinerkoError: it fails, or the output is of other files, options or earlier stages.
        """
        flags: list[str] = []
        for name, value in options.items():
            values = [text for each in (value if isinstance(value, list) else [value]) for text in self.fill(str(each))]
            if not values:
                raise GlinerkoError(f"the recipe gives {script} {value} as --{name}: pass such a file")
            flags += [f"--{name}", *values]
        output = flags[flags.index("--report_dir" if script == "eval" else "--output_dir") + 1]
        flags += more
        mark = Path(f"{output}.done")
        self.done = [*self.done, [script, flags]]
        if mark.is_file():
            if json.loads(mark.read_text(encoding="utf-8")) != self.done:
                raise GlinerkoError(
                    f"{output} was made of other files, options or earlier stages: name another --output_dir (or "
                    "another --name, where only flags after -- differ), or delete it and its .done"
                )
            return
        resumable = "resume_from_checkpoint" in (SCRIPTS / f"{script}.py").read_text(encoding="utf-8")
        resume = ["--resume_from_checkpoint", "latest"] if resumable else []
        self.call([sys.executable, str(SCRIPTS / f"{script}.py"), *flags, *resume])
        mark.write_text(json.dumps(self.done), encoding="utf-8")

    def fill(self, value: str) -> list[str]:
        """A value with its places filled in."""
        if value in self.places:
            return self.places[value]
        for place, texts in self.places.items():
            value = value.replace(place, " ".join(texts))
        return [value]

    def call(self, command: list[str]) -> None:
        """Run a script of ours.

        Raises:
            GlinerkoError: it failed, and has said why.
        """
        where = f" > {self.log}" if self.log else ""
        print(f"$ {shlex.join(command[1:])}{where}", flush=True)
        threads = max((os.cpu_count() or 1) // self.jobs, 1)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if self.jobs > 1 else None
        with open(self.log, "a", encoding="utf-8") if self.log else nullcontext() as file:
            output = {"stdout": file, "stderr": file} if file else {}
            status = subprocess.run(command, env=environment, **output).returncode
        if status:
            raise GlinerkoError(
                f"{Path(command[1]).name} ended with status {status}{f' (see {self.log})' if file else ''}; the same "
                "command goes on from there"
            )


def pool_scores(directory: Path, name: str, folds: list[int], metric: str) -> Scores:
    """The scores of a variant on the held-out documents of all folds.

    Raises:
        GlinerkoError: it was not done for one of them.
    """
    labels, counts = None, []
    for number in folds:
        report = directory / f"fold-{number}" / name / "dev"
        if not (report / "counts.jsonl").is_file():
            raise GlinerkoError(f"{report}: fold {number} of {name!r} was not done")
        labels = labels or tuple(json.loads((report / "report.json").read_text(encoding="utf-8"))[metric]["labels"])
        lines = (report / "counts.jsonl").read_text(encoding="utf-8").splitlines()
        counts += [json.loads(line)[metric] for line in lines]
    return Scores.from_counts(counts, labels)


if __name__ == "__main__":
    run(main)
