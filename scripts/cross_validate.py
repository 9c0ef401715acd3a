"""Cross-validate a recipe: for each fold of a corpus, train on the other folds and score on this one.

    python scripts/cross_validate.py recipes/real_corpus.yaml --train_file train.jsonl --text_file notes.txt
    python scripts/cross_validate.py recipes/real_corpus.yaml --train_file train.jsonl --name whitespace \\
        --compare default -- --word_splitter whitespace

A recipe is a YAML list of stages. A stage is the name of a script in scripts/ with the options of that script:
- `output_dir` or `report_dir` is where the stage writes. The last stage is the training: it writes to
  OUTPUT_DIR/fold-N/NAME and also gets the flags after --.
- `resume_from_checkpoint: latest` says that the stage can resume; without it, an interrupted stage starts again.
- Values can contain {fold} (directory of the fold), {train} (its training documents), {dev} (its held-out documents),
  {text} and {related} (files of --text_file and --related_file) and {shared} (directory for all folds).

The first stages without {fold}, {train} and {dev} run once for all folds. A stage that finished with the same options
is not run again: variants share the stages before the training, and the same command continues after an interruption.
--shares 0.25 0.5 1 trains on shares of the training documents of each fold, and tells what more documents would bring.
--compare default other --average also scores the mean of the variants, as predict.py with several models finds it.
With --jobs 2, two folds run at the same time and each gets half of the cores: on a CPU that is faster.

The epoch and the threshold are chosen on validation documents from the training side of each fold. The scores are
computed on the held-out documents of all folds together, with 95 % bootstrap intervals over documents.
"""

from __future__ import annotations

import json
import math
import os
import random
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from importlib import import_module
from itertools import product, takewhile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import (
    DataError,
    GlinerkoError,
    Stopped,
    check_output,
    file_digest,
    read_json,
    read_json_lines,
    read_yaml,
    write_json,
    write_json_lines,
    write_text,
)
from glinerko.corpus.reading import label_schema, load_rows, write_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.splits import fold_rows
from glinerko.model.ensemble import average_spans
from glinerko.model.prediction import overlap_resolver
from glinerko.scoring.candidates import read_candidates
from glinerko.scoring.learning_curve import curve_points, forecast
from glinerko.scoring.metrics import METRICS, Scores, compare_scores, metric_title, score_strings
from glinerko.sharing.tables import comparison_table, curve_table, score_table
from glinerko.training.checkpoints import BEST, REPORT_CANDIDATES, REPORT_COUNTS, REPORT_FIGURES
from glinerko.training.texts import HELD_OUT, HeldOutTexts, load_documents

SCRIPTS = Path(__file__).parent
OF_A_FOLD = ("{fold}", "{train}", "{dev}")
OUTPUTS = ("output_dir", "report_dir")
RESUME = "resume_from_checkpoint"

Stage = tuple[str, dict[str, Any]]
"""Name of a script, and its options."""


@dataclass
class Arguments:
    train_file: str = option(help="labelled documents, JSON lines")
    text_file: list[str] = option([], "raw text for pre-training ({text}); labelled documents in it are left out")
    related_file: list[str] = option(
        [], "documents with other labels to train on first ({related}); those with words of the labelled are left out"
    )
    output_dir: str = option("outputs/cross-validation", "output directory")
    name: str = option("default", "name of this variant of the recipe")
    compare: list[str] = option([], "names of finished variants to compare with")
    average: bool = option(False, "the mean scores of all these variants as one more variant")
    folds: int = option(5, "number of folds; the same texts stay in one fold", at_least=2)
    only: list[int] | None = option(None, "folds to run, counted from 0 (default: all)", at_least=0)
    jobs: int = option(1, "number of folds that run at the same time", at_least=1)
    shares: list[float] | None = option(
        None, "learning curve: shares of the training documents of each fold, such as 0.25 0.5 1", above=0, at_most=1
    )
    more_documents: int = option(200, "further documents whose effect the learning curve predicts", at_least=1)
    seed: int = option(42, "random seed of the folds, and of the shares", at_least=0)
    metric: str = option("string_f1", "reported and compared metric", choices=lambda: METRICS)


def main() -> None:
    recipe, more = take_recipe()
    usage = "%(prog)s RECIPE --train_file FILE [options] [-- options of the training]"
    (args,) = parse_arguments(Arguments, description=__doc__, usage=usage)
    set_log_levels(is_main_process=True)
    stages = read_recipe(recipe)
    labels = check_stages(stages, args, more)
    if args.average and not args.compare:
        raise GlinerkoError("--average needs several variants: name the others as --compare")
    if len({args.name, *args.compare}) <= len(args.compare):
        raise GlinerkoError("--compare: each variant once, and not the one of --name")
    for file in (*args.text_file, *args.related_file):
        if not Path(file).is_file():
            raise DataError(f"{file}: no such file")
    rows, _ = load_rows(args.train_file)
    for key, number in Counter(key for keys in rows["unused"] for key in keys).items():
        print(f"{number:,} rows have the key {key}, which is not used")
    wanted = label_schema(rows, labels).labels
    if not wanted:
        raise DataError(f"{args.train_file}: no labels of entities; other tasks alone are not cross-validated")
    parts = fold_rows(rows, args.folds, args.seed)
    chosen = args.only if args.only is not None else list(range(args.folds))
    if not set(chosen) <= set(range(args.folds)) or len(set(chosen)) < len(chosen):
        raise DataError(f"--only: the folds are 0 to {args.folds - 1}, each once")

    directory = Path(args.output_dir)
    shares = sorted({*(args.shares or [1.0])})
    for share, number in product(shares, chosen):
        write_fold(parts, number, share, args, wanted)
    for name in args.compare:
        others = pool_scores([fold_directory(args, number) / name / "dev" for number in chosen], args.metric).labels
        if set(others) != set(wanted):
            raise GlinerkoError(f"--compare {name}: it was scored on other labels: {', '.join(others)}")
    text_files = [str(unlabelled_text(args, directory))] if args.text_file and "{text}" in str(stages) else []
    related = [str(related_documents(args, directory))] if args.related_file and "{related}" in str(stages) else []
    places = {"{shared}": [str(directory / "shared")], "{text}": text_files, "{related}": related}
    common = Pipeline(places, [])
    shared = list(takewhile(lambda stage: not any(place in str(stage[1]) for place in OF_A_FOLD), stages[:-1]))
    with common.scripts.receive_signals(), ThreadPoolExecutor(args.jobs) as pool:
        for stage in shared:
            pool.submit(common.run, *stage).result()
        for share in shares:
            list(pool.map(partial(run_fold, stages[len(shared) :], common, args, more, labels, share), chosen))
    if common.scripts.stopped:
        raise Stopped("stopped between two scripts; the same command continues")
    about = {"recipe": str(recipe), "flags": more, "folds": chosen, "seed": args.seed}
    if args.shares:
        report_curve(args, chosen, shares, about)
    else:
        report(args, chosen, about)


def unlabelled_text(args: Arguments, directory: Path) -> Path:
    """A file of the raw text without the labelled documents, on which every fold is scored once."""
    documents, left_out = load_documents(args.text_file, held_out_files=[args.train_file])
    file = directory / "text.jsonl"
    check_output(file, *args.text_file)
    write_json_lines(file, ({"text": row["text"]} for row in documents if row["text"]))
    print(f"{left_out[HELD_OUT]:,} of {len(documents):,} raw texts have words of the labelled documents: left out")
    return file


def related_documents(args: Arguments, directory: Path) -> Path:
    """A file of the related documents without those that have words of the labelled ones, as for raw text."""
    held_out, parts = HeldOutTexts([args.train_file]), [load_rows(file)[0] for file in args.related_file]
    rows = concatenate_datasets(parts)
    kept = [index for index, text in enumerate(rows["text"]) if not held_out.share_words(text)]
    if not kept:
        raise DataError(f"{', '.join(args.related_file)}: no document is left, because they are the labelled ones")
    file = directory / "related.jsonl"
    check_output(file, *args.related_file)
    write_rows(rows.select(kept), file)
    print(f"{len(rows) - len(kept):,} of {len(rows):,} related documents have words of the labelled ones: left out")
    return file


def take_recipe() -> tuple[Path, list[str]]:
    """Remove the recipe file and the flags after ``--`` from the command line, and return them.

    Raises:
        GlinerkoError: No recipe is named.
    """
    flags = sys.argv[1:]
    cut = flags.index("--") if "--" in flags else len(flags)
    own, more = flags[:cut], flags[cut + 1 :]
    if {"-h", "--help"} & set(own):
        sys.argv[1:] = ["--help"]
        return Path(), []
    if not own or own[0].startswith("-"):
        raise GlinerkoError("name a recipe first, for example recipes/real_corpus.yaml")
    sys.argv[1:] = own[1:]
    return Path(own[0]), more


def read_recipe(path: Path) -> list[Stage]:
    """Read the stages of a recipe, in order.

    Raises:
        GlinerkoError: The file cannot be read, a script does not exist, or a stage has no output directory.
    """
    stages = read_yaml(path, "a list of `script: {option: value}`", lambda content: [_stage(each) for each in content])
    unknown = [script for script, _ in stages if not (SCRIPTS / f"{script}.py").is_file()]
    if unknown or not stages:
        raise GlinerkoError(f"{path}: no such script: {', '.join(unknown) or 'none is named'}")
    if "{train}" not in str(stages[-1][1].get("train_file")):
        raise GlinerkoError(f"{path}: the last stage trains on the documents of the fold: train_file: '{{train}}'")
    for script, options in stages[:-1]:
        if not options.keys() & set(OUTPUTS):
            raise GlinerkoError(f"{path}: {script} has no {' or '.join(OUTPUTS)}")
    return stages


def _stage(entry: dict[str, dict[str, Any]]) -> Stage:
    ((script, options),) = entry.items()
    return script, dict(options)


@dataclass
class Scripts:
    """The scripts that run now, for all folds. Each has a session of its own, so that it gets each signal once."""

    running: list[subprocess.Popen] = field(default_factory=list)
    asked: bool = False
    """Whether a signal asked to stop."""
    stopped: bool = False
    """Whether one failed or was stopped, so that no other may start."""

    @contextmanager
    def receive_signals(self) -> Iterator[None]:
        """Pass the signals that would end this process on to the scripts, which can write a checkpoint first."""
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self.stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, *_: Any) -> None:
        """Ask the scripts to stop."""
        self.asked = self.stopped = True
        for script in list(self.running):
            script.terminate()

    def run(self, command: Sequence[str], **options: Any) -> int:
        """Run a script to its end, and return its exit status."""
        with subprocess.Popen(command, start_new_session=True, **options) as script:
            self.running.append(script)
            if self.asked:  # before it was in the list
                script.terminate()
            status = script.wait()
            self.running.remove(script)
        self.stopped = self.stopped or status != 0
        return status


@dataclass
class Pipeline:
    """Stages that run one after the other.

    Args:
        places: The texts that replace a place such as ``{train}``; a place can stand for several files, or for none.
        done: What was done so far: the script and flags of each stage, with the digests of files.
        log: File for the output of the scripts (default: the terminal).
        jobs: Number of pipelines that share the cores.
        scripts: Those of all pipelines.
    """

    places: dict[str, list[str]]
    done: list[Any]
    log: Path | None = None
    jobs: int = 1
    scripts: Scripts = field(default_factory=Scripts)

    def run(self, script: str, options: dict[str, Any], more: Sequence[str] = ()) -> None:
        """Run a stage, unless the ``.done`` file beside its output says that it finished, or another script failed.

        Raises:
            GlinerkoError: The script fails, or the output comes from other files, options or earlier stages.
            Stopped: The script was stopped.
        """
        if self.scripts.stopped:
            return
        output, options = self.output(options), dict(options)
        resume = [f"--{RESUME}", *self.fill(options.pop(RESUME))] if RESUME in options else []
        flags = [*self.flags(script, options), *more]
        mark = Path(f"{output}.done")
        self.done = [*self.done, [script, flags, *self.digests(options, more)]]
        if not mark.is_file():
            self.call([sys.executable, str(SCRIPTS / f"{script}.py"), *flags, *resume])
            write_text(mark, json.dumps(self.done))
        elif json.loads(mark.read_text(encoding="utf-8")) != self.done:
            self.scripts.stopped = True
            raise GlinerkoError(
                f"{output} was made of other files, options or earlier stages: choose another --output_dir (or another "
                "--name, if only flags after -- differ), or delete it and its .done file"
            )

    def digests(self, options: dict[str, Any], more: Sequence[str]) -> list[str]:
        """The digests of the files and models that the options and flags name, without what earlier stages wrote."""
        own = [Path(text) for place in ("{fold}", "{shared}") for text in self.places.get(place, ())]
        texts = [text for name, value in options.items() if name not in OUTPUTS for text in self.fill(value)]
        named = [Path(text) for text in (*texts, *more)]
        return [
            digest for path in named if not any(map(path.is_relative_to, own)) for digest in digests_of_content(path)
        ]

    def output(self, options: dict[str, Any]) -> str:
        """Where a stage writes."""
        return next(self.fill(options[name])[0] for name in OUTPUTS if name in options)

    def flags(self, script: str, options: dict[str, Any]) -> list[str]:
        """The options as command-line texts.

        Raises:
            GlinerkoError: One of them is a file that was not passed.
        """
        flags = []
        for name, value in options.items():
            values = self.fill(value)
            if not values:
                raise GlinerkoError(f"{script} needs {value} as --{name}: pass such a file")
            flags += [f"--{name}", *values]
        return flags

    def fill(self, value: Any) -> list[str]:
        """The value of an option as command-line texts, with its places replaced."""
        if isinstance(value, list):
            return [text for each in value for text in self.fill(each)]
        text = str(value)
        if text in self.places:
            return self.places[text]
        for place, texts in self.places.items():
            text = text.replace(place, " ".join(texts))
        return [text]

    def call(self, command: list[str]) -> None:
        """Run a command.

        Raises:
            GlinerkoError: It failed; its own message says why.
            Stopped: It stopped on request.
        """
        where = f" > {self.log}" if self.log else ""
        print(f"$ {shlex.join(command[1:])}{where}", flush=True)
        threads = max((os.cpu_count() or 1) // self.jobs, 1)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if self.jobs > 1 else None
        with open(self.log, "a", encoding="utf-8") if self.log else nullcontext() as file:
            output = {"stdout": file, "stderr": file} if file else {}
            status = self.scripts.run(command, env=environment, **output)
        if status:
            asked = self.scripts.asked or status == os.EX_TEMPFAIL
            kind, what = (Stopped, "stopped") if asked else (GlinerkoError, f"ended with status {status}")
            where = f" (see {self.log})" if self.log else ""
            raise kind(f"{Path(command[1]).name} {what}{where}; run the same command again to continue from there")


@cache
def digests_of_content(path: Path) -> list[str]:
    """The digest of a file, or of the weights of a model's directory; none if there is no such thing."""
    weights = sorted(file for kind in ("*.safetensors", "*.bin") for file in path.glob(kind)) if path.is_dir() else []
    return [file_digest(file) for file in ([path] if path.is_file() else weights)]


def check_stages(stages: Sequence[Stage], args: Arguments, more: Sequence[str]) -> list[str] | None:
    """Check the options of all stages before the first one runs.

    Returns:
        The labels to train on; ``None`` for all.

    Raises:
        GlinerkoError: One does not exist, has a value that is not allowed, or is a file that was not passed; or two
            stages write to the same place.
    """
    places = {place: [place] for place in (*OF_A_FOLD, "{shared}")}
    pipeline = Pipeline({**places, "{text}": args.text_file, "{related}": args.related_file}, [])
    *before, (training, options) = stages
    last = training, {**options, "output_dir": f"{{fold}}/{args.name}"}
    written = set()
    for stage in (*before, last):
        script, own = stage
        flags, module = pipeline.flags(script, own), import_module(script)
        classes = module.ARGUMENTS if hasattr(module, "ARGUMENTS") else (module.Arguments,)
        try:
            parsed = parse_arguments(*classes, description="", flags=[*flags, *(more if stage is last else ())])
        except GlinerkoError as error:
            raise GlinerkoError(f"{script}: {error}") from error
        if any(getattr(each, "push_to_hub", False) or getattr(each, "hub_token", None) for each in parsed):
            raise GlinerkoError(f"{script}: --push_to_hub and --hub_token: models of a fold are not published")
        output = Path(pipeline.output(own))
        if output in written:
            raise GlinerkoError(f"{script} would write to {output}, as an earlier stage does: choose another name")
        written.add(output)
    return next((each.labels for each in parsed if hasattr(each, "labels")), None)


def fold_directory(args: Arguments, number: int, share: float = 1.0) -> Path:
    """Where a fold is, or a share of its training documents."""
    fold = Path(args.output_dir) / f"fold-{number}"
    return fold if share == 1 else fold / f"share-{share:g}"


def fold_files(args: Arguments, number: int, share: float) -> tuple[Path, Path]:
    """The training documents of a fold, or a share of them, and the held-out ones."""
    fold = fold_directory(args, number, share)
    return fold / "train.jsonl", fold / "dev.jsonl"


def write_fold(parts: list[Dataset], number: int, share: float, args: Arguments, wanted: Sequence[str]) -> None:
    """Write a share of all ``parts`` except ``number`` to train on, and that one to score on.

    A smaller share is a part of a larger one.

    Args:
        wanted: The labels that every training must know.

    Raises:
        GlinerkoError: The directory holds other documents, and a stage that finished with them.
        DataError: No training document names one of the labels.
    """
    rows = concatenate_datasets([part for index, part in enumerate(parts) if index != number])
    order = random.Random(f"{args.seed}-{number}").sample(range(len(rows)), len(rows))
    train = rows.select(sorted(order[: math.ceil(share * len(rows))]))
    missing = set(wanted) - set(label_schema(train).labels)
    if missing:
        raise DataError(
            f"{args.train_file}: no training document of fold {number} (share {share:g}) names the label "
            f"{', '.join(sorted(missing))}: choose labels with -- --labels"
        )
    for documents, file in zip((train, parts[number]), fold_files(args, number, share), strict=True):
        check_output(file, args.train_file)
        new = file.with_name(f"{file.name}.new")
        write_rows(documents, new)
        if any(file.parent.glob("*.done")) and file_digest(file) != file_digest(new):
            new.unlink()
            raise GlinerkoError(f"{file} holds other documents than this fold has now: choose another --output_dir")
        new.replace(file)


def run_fold(
    stages: list[Stage],
    common: Pipeline,
    args: Arguments,
    more: list[str],
    labels: list[str] | None,
    share: float,
    number: int,
) -> None:
    """Run ``stages`` on the training documents of a fold, and score the trained model on the held-out ones."""
    fold = fold_directory(args, number, share)
    train, dev = fold_files(args, number, share)
    pipeline = Pipeline(
        {**common.places, "{fold}": [str(fold)], "{train}": [str(train)], "{dev}": [str(dev)]},
        [*common.done, file_digest(train), file_digest(dev)],
        fold / f"{args.name}.log" if args.jobs > 1 else None,
        args.jobs,
        common.scripts,
    )
    *before, (script, options) = stages
    for stage in before:
        pipeline.run(*stage)
    output = fold / args.name
    pipeline.run(script, {**options, "output_dir": output}, more)
    documents = {"test_file": dev, "train_file": train, **({"labels": labels} if labels else {})}
    pipeline.run("eval", {"model": output / BEST, **documents, "metric": args.metric, "report_dir": output / "dev"})


def report(args: Arguments, folds: list[int], about: dict[str, Any]) -> None:
    """Print the scores of this variant and its comparison with others, and write them with ``about`` to a file."""
    names, directories = (args.name, *args.compare), [fold_directory(args, number) for number in folds]
    variants = {name: pool_scores([each / name / "dev" for each in directories], args.metric) for name in names}
    unseen = {name: score_together(directories, [name], args.metric)[1] for name in names}
    if args.average:
        title = f"mean of these {len(names)}"
        variants[title], unseen[title] = score_together(directories, names, args.metric)
    compared, compared_unseen = (
        compare_scores([(title, None, scores) for title, scores in each.items()]) for each in (variants, unseen)
    )
    own, file = variants[args.name], Path(args.output_dir) / f"{args.name}.json"
    title = f"{args.name}, {args.metric} on {len(own.counts)} held-out documents of {len(folds)} folds"
    write_json(file, {**about, **own.to_dict(), "comparisons": compared, "unseen": compared_unseen})
    console = make_console()
    console.print(score_table(title, {args.metric: own.to_dict()}))
    console.print(comparison_table(compared, metric_title(args.metric)))
    console.print(comparison_table(compared_unseen, f"{metric_title('string_f1')} of unseen mentions"))
    console.print(f"Scores   {file}")


def score_together(folds: Sequence[Path], names: Sequence[str], metric: str) -> tuple[Scores, Scores]:
    """The scores of the mean of several variants on the held-out documents, and the string scores of unseen mentions.

    No model is run, and nothing is chosen: the threshold is the mean of those that the models chose on validation
    documents. Overlaps are resolved as by the first variant.
    """
    labels, counts = [], ([], [])
    for fold in folds:
        examples, seen = read_fold(fold)
        reports = [fold / name / "dev" for name in names]
        figures = [read_json(each / REPORT_FIGURES) for each in reports]
        labels = labels or list(figures[0][metric]["labels"])
        candidates = [read_candidates([str(each / REPORT_CANDIDATES)], examples, labels) for each in reports]
        threshold = mean(each["threshold"] for each in figures)
        resolve = overlap_resolver(figures[0].get("overlap_policy"))
        averages = map(average_spans, zip(*candidates, strict=True))
        found = [resolve([span for span in spans if span.score >= threshold]) for spans in averages]
        both = METRICS[metric].score(examples, found, labels), score_strings(examples, found, labels, leave_out=seen)
        for all_folds, scores in zip(counts, both, strict=True):
            all_folds.append(scores.counts)
    return tuple(Scores.from_counts(np.concatenate(each), labels) for each in counts)


@cache
def read_fold(fold: Path) -> tuple[list[Example], set[tuple[str, str]]]:
    """The held-out documents, and the pairs of mention and label that the training documents have."""
    training, held_out = (load_rows(str(fold / f"{side}.jsonl"))[0] for side in ("train", "dev"))
    return list(map(Example.from_row, held_out)), {p for row in training for p in Example.from_row(row).gold_strings}


def report_curve(args: Arguments, folds: list[int], shares: list[float], about: dict[str, Any]) -> None:
    """Print the scores by the number of training documents, and what more documents would bring."""
    sizes, counts = [], []
    for share in shares:
        places = [fold_directory(args, number, share) for number in folds]
        sizes.append(sum(len(read_json_lines(place / "train.jsonl")) for place in places) / len(places))
        counts.append([pool_scores([place / args.name / "dev"], args.metric).counts.sum(axis=1) for place in places])
    points = curve_points(sizes, counts)
    result: dict[str, Any] = {**about, "metric": args.metric, "points": [asdict(point) for point in points]}
    console = make_console()
    console.print(curve_table(points, args.metric))
    if len(shares) > 1:
        gain = forecast(sizes, counts, sizes[-1] + args.more_documents, since=sizes[-1])
        result["forecast"] = {"more_documents": args.more_documents, **asdict(gain)}
        console.print(
            f"{args.more_documents:,} more documents like these: about {gain.low:+.3f} to {gain.high:+.3f} "
            f"{METRICS[args.metric].title} ({gain.f1:+.3f} on the curve)"
        )
    known = sum(share <= shares[-1] / 2 for share in shares)
    if known > 1:
        test = forecast(sizes[:known], counts[:known], sizes[-1])
        result["check"] = {**asdict(test), "measured": points[-1].f1}
        console.print(
            f"Check: from {round(sizes[known - 1]):,} documents or fewer, the curve predicts {test.f1:.3f} "
            f"({test.low:.3f} – {test.high:.3f}) for {test.documents:,}; measured {points[-1].f1:.3f}"
        )
    file = Path(args.output_dir) / f"{args.name}-curve.json"
    write_json(file, result)
    console.print(f"Curve    {file}")


def pool_scores(scored_directories: Sequence[Path], metric: str) -> Scores:
    """The scores on the held-out documents of several evaluations together.

    Raises:
        GlinerkoError: The variant was not run on one of them.
    """
    labels, counts = None, []
    for scored in scored_directories:
        if not (scored / REPORT_COUNTS).is_file():
            raise GlinerkoError(f"{scored}: no scores; run {scored.parent.name!r} on this fold first")
        own = list(read_json(scored / REPORT_FIGURES)[metric]["labels"])
        labels = labels or own
        if sorted(labels) != sorted(own):
            raise GlinerkoError(f"{scored}: other labels than in {scored_directories[0]}: {', '.join(own)}")
        order = [own.index(label) for label in labels]  # each fold has the order of its own training documents
        documents = (document[metric] for document in read_json_lines(scored / REPORT_COUNTS))
        counts += [[document[place] for place in order] for document in documents]
    return Scores.from_counts(counts, labels)


if __name__ == "__main__":
    run(main)
