"""Planted label noise: how many planted faults the review of labels finds, and what their correction is worth.

    python scripts/make_starter_pair.py --output_dir outputs/starter
    python benchmarks/label_noise.py --rates 0.1
    python benchmarks/label_noise.py --train_file train.jsonl --test_file test.jsonl --recipe recipe.yaml --kinds drop

A share of the mentions is dropped, moved by a word at one end, or gets another label. `cross_validate.py` trains on the
noisy corpus with the recipe, and the review ranks its places. The ranking is compared with a random order and with a
dictionary: the strings that are not labelled in the same way everywhere, as the doctor lists them, with the places that
differ from most. Then models are trained on the noisy, the clean and the corrected corpus, and scored on clean held-out
documents. Corrected means: a person went through the findings until --share_looked_at of the documents were looked at,
and accepted exactly the proposals that are right. The same command goes on after an interruption.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, file_digest, read_json, read_yaml, write_json, write_text
from glinerko.corpus.diagnosis import StringUse, find_disagreements
from glinerko.corpus.matching import find_mention
from glinerko.corpus.reading import label_schema, load_rows, write_rows
from glinerko.corpus.rows import Example, Offsets, SpanKey
from glinerko.corpus.words import load_word_splitter
from glinerko.scoring.candidates import find_candidates, read_candidates
from glinerko.scoring.review import Finding, review_labels
from glinerko.sharing.tables import Table, plain_table
from glinerko.training.checkpoints import BEST, REPORT_FIGURES

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
KINDS = ("drop", "shift", "relabel")
FIRST = 100
"""How many places the precision is about."""
TRAINING = "train_gliner2_korean_encoder"

Place = tuple[int, list[Offsets]]
"""A document, and stretches of its text: one place to look at."""


@dataclass
class Arguments:
    train_file: str = option(str(SAMPLE / "train.jsonl"), "clean documents, JSON lines")
    test_file: str = option(str(SAMPLE / "test.jsonl"), "clean held-out documents")
    recipe: str = option(str(ROOT / "recipes" / "label_noise.yaml"), "recipe of one stage, the training")
    kinds: list[str] = option(list(KINDS), "kinds of noise, the same share of each", choices=KINDS)
    rates: list[float] = option([0.05, 0.1, 0.2], "shares of the mentions to change", above=0, below=1)
    folds: int = option(3, "number of folds", at_least=2)
    share_looked_at: float = option(0.1, "share of the documents that are looked at", above=0, at_most=1)
    train: bool = option(True, "training on the noisy, clean and corrected corpus")
    max_width: int = option(12, "widest mention, in words", at_least=1)
    seed: int = option(42, "random seed of the noise and the folds", at_least=0)
    output_dir: str = option("outputs/benchmarks/label_noise", "directory for the corpora and models")
    output_file: str = option("outputs/benchmarks/label_noise.json", "file for the figures")


@dataclass(frozen=True)
class Fault:
    document: int
    kind: str
    clean: SpanKey
    noisy: SpanKey | None


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    console = make_console()
    stages = read_yaml(args.recipe, "a list of `script: {option: value}`", lambda content: list(map(dict, content)))
    if [list(stage) for stage in stages] != [[TRAINING]]:
        raise GlinerkoError(f"{args.recipe}: the benchmark takes a recipe of one stage, {TRAINING}")
    options = {key: value for key, value in stages[0][TRAINING].items() if key != "resume_from_checkpoint"}
    rows, _ = load_rows(args.train_file)
    if len({*rows["id"]}) < len(rows):  # the review needs to know whose candidates are whose
        rows = rows.map(lambda row, number: {"id": f"{row['id']} {number}"}, with_indices=True, desc="Giving ids")
    figures = []
    for rate in args.rates:
        figures.append({"rate": rate, "kinds": args.kinds, **measure(args, rows, rate, options)})
        console.print(table(figures[-1]))
        write_json(Path(args.output_file), {"train_file": args.train_file, "seed": args.seed, "figures": figures})


def measure(args: Arguments, rows: Dataset, rate: float, options: dict[str, Any]) -> dict[str, Any]:
    """The figures for one rate."""
    directory = Path(args.output_dir) / f"{'-'.join(args.kinds)}-{rate:g}-{args.seed}"
    clean = [Example.from_row(row) for row in rows]
    words = load_word_splitter("korean").split_batch(rows["text"][:])
    labels = label_schema(rows).labels
    spans, faults = plant_noise(clean, words, labels, rate, args.kinds, args.seed)
    noisy_file = write_corpus(rows, spans, directory / "noisy.jsonl")
    noisy = [Example.from_row(row) for row in load_rows(str(noisy_file))[0]]
    folds = directory / "cross-validation"
    flags = ["--train_file", noisy_file, "--output_dir", folds, "--folds", args.folds, "--seed", args.seed]
    call("cross_validate", args.recipe, *flags)
    candidates = read_candidates(find_candidates(str(folds), "default", noisy), noisy, labels)
    findings = review_labels(noisy, candidates, words, args.max_width).findings
    uses = find_disagreements(noisy, words, args.max_width)
    one_sided = sorted(
        uses, key=lambda use: use.doubtful / (len(use.unlabelled) + sum(map(len, use.labelled.values())))
    )
    orders = {
        "review": [(f.document, [i.span.key[:2] for i in (*f.current, *f.proposed)]) for f in findings],
        "dictionary": list(dictionary_places(uses, noisy)),
        "dictionary, rare readings first": list(dictionary_places(one_sided, noisy)),
    }
    result: dict[str, Any] = {"faults": len(faults), "by_kind": dict(Counter(fault.kind for fault in faults))}
    result["orders"] = {name: score_order(order, faults, len(findings)) for name, order in orders.items()}
    hit = sum(any(fault_is_at(place, fault) for fault in faults) for place in orders["review"])
    result["orders"]["random"] = {"precision": hit / len(findings), "area": 0.5, "places": len(findings)}
    right = [is_right(finding, clean[finding.document]) for finding in findings]
    result["right_proposals"] = sum(right[:FIRST]) / FIRST
    looked_at = look_at(findings, round(args.share_looked_at * len(clean)))
    corrected = [set(own) for own in spans]
    for finding, accepted in zip(looked_at, right, strict=False):
        if accepted:
            corrected[finding.document] -= {item.span.key for item in finding.current}
            corrected[finding.document] |= {item.span.key for item in finding.proposed}
    result["decisions"] = len(looked_at)
    result["faults_left"] = sum(f.clean not in corrected[f.document] for f in faults)
    if args.train:
        corpora = {"noisy": spans, "clean": [example.gold_spans for example in clean], "corrected": corrected}
        files = {name: write_corpus(rows, own, directory / f"{name}.jsonl") for name, own in corpora.items()}
        f1 = {name: train_and_score(file, args.test_file, directory / name, options) for name, file in files.items()}
        lost = f1["clean"] - f1["noisy"]
        result |= {"f1": f1, "won_back": (f1["corrected"] - f1["noisy"]) / lost if lost > 0 else None}
    return result


def plant_noise(
    examples: Sequence[Example],
    words: Sequence[Sequence[Offsets]],
    labels: Sequence[str],
    rate: float,
    kinds: Sequence[str],
    seed: int,
) -> tuple[list[set[SpanKey]], list[Fault]]:
    """The gold spans of each document with ``rate`` of them changed, and what was changed; each span at most once."""
    rng = random.Random(seed)
    spans = [set(example.gold_spans) for example in examples]
    places = sorted((document, span) for document, own in enumerate(spans) for span in own)
    rng.shuffle(places)
    faults: list[Fault] = []
    wanted = round(rate * len(places))
    for document, span in places:
        if len(faults) == wanted:
            break
        kind, others = kinds[len(faults) % len(kinds)], spans[document] - {span}
        changed = [None] if kind == "drop" else changes(kind, span, words[document], others, labels)
        if changed:
            noisy = None if kind == "drop" else rng.choice(changed)
            spans[document] = others | ({noisy} if noisy else set())
            faults.append(Fault(document, kind, span, noisy))
    return spans, faults


def changes(
    kind: str, span: SpanKey, words: Sequence[Offsets], others: set[SpanKey], labels: Sequence[str]
) -> list[SpanKey]:
    """What a span can become: with another label, or a word longer or shorter at one end without touching others."""
    start, end, label = span
    if kind == "relabel":
        return [(start, end, other) for other in labels if other != label and (start, end, other) not in others]
    starts, ends = zip(*words, strict=True)
    if start not in starts or end not in ends:
        return []
    first, last = starts.index(start), ends.index(end)
    moved = [(first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)]
    found = [(starts[a], ends[b]) for a, b in moved if 0 <= a <= b < len(words)]
    return [(s, e, label) for s, e in found if not any(s < after and before < e for before, after, _ in others)]


def write_corpus(rows: Dataset, spans: Sequence[set[SpanKey]], path: Path) -> Path:
    """Write the rows with other gold."""

    def mentions(row: dict[str, Any], own: set[SpanKey]) -> list[dict[str, Any]]:
        return [{"label": each, "text": row["text"][s:e], "spans": [(s, e)]} for s, e, each in sorted(own)]

    write_rows(({**row, "mentions": mentions(row, own)} for row, own in zip(rows, spans, strict=True)), path)
    return path


def call(script: str, *arguments: Any) -> None:
    """Run a script of the project.

    Raises:
        GlinerkoError: It failed; its own message says why.
    """
    command = [sys.executable, ROOT / "scripts" / f"{script}.py", *arguments]
    status = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode
    if status:
        raise GlinerkoError(f"{script}.py ended with status {status}")


def dictionary_places(uses: Sequence[StringUse], examples: Sequence[Example]) -> Iterator[Place]:
    """The places of the readings that are not those of most documents, each once."""
    index = {example.id: number for number, example in enumerate(examples)}
    seen: set[tuple[int, Offsets]] = set()
    for use in uses:
        readings: dict[str | None, list[str]] = {**use.labelled, None: use.unlabelled}
        usual = max(readings, key=lambda reading: len(readings[reading]))
        for label, ids in readings.items():
            for document in (index[each] for each in ids if label != usual):
                example = examples[document]
                own = [(s, e) for s, e, each in sorted(example.gold_spans) if each == label]
                own = [(s, e) for s, e in own if example.string(s, e) == use.string]
                for place in own if label else find_mention(example.text, use.string):
                    if (document, place) not in seen:
                        seen.add((document, place))
                        yield document, [place]


def fault_is_at(place: Place, fault: Fault) -> bool:
    touched = [fault.clean, *([fault.noisy] if fault.noisy else [])]
    return place[0] == fault.document and any(s < end and start < e for s, e in place[1] for start, end, _ in touched)


def score_order(order: Sequence[Place], faults: Sequence[Fault], places: int) -> dict[str, float]:
    """How early an order comes to the faults.

    Returns:
        The precision of its first places, the area under the curve of the share of faults by the share of ``places``
        that were looked at (faults that it does not list come at random after its end), and its length.
    """
    at = [[n for n, fault in enumerate(faults) if fault_is_at(place, fault)] for place in order]
    found: dict[int, int] = {}
    for rank, hits in enumerate(at):
        for fault in hits:
            found.setdefault(fault, rank)
    late = (min(len(order), places) + places) / 2
    ranks = [min(found.get(fault, late), places) for fault in range(len(faults))]
    area = 1 - sum(ranks) / len(ranks) / places
    return {"precision": sum(map(bool, at[:FIRST])) / FIRST, "area": area, "places": len(order)}


def is_right(finding: Finding, clean: Example) -> bool:
    """Whether a proposal makes its place what it was before the noise, and was not so already."""
    current, proposed = ({item.span.key for item in side} for side in (finding.current, finding.proposed))
    region = current | proposed
    truth = {key for key in clean.gold_spans if any(key[0] < end and start < key[1] for start, end, _ in region)}
    return proposed == truth != current


def look_at(findings: Sequence[Finding], documents: int) -> list[Finding]:
    """The first findings: as many as lie in this number of documents."""
    seen: set[int] = set()
    for number, finding in enumerate(findings):
        seen.add(finding.document)
        if len(seen) > documents:
            return list(findings[:number])
    return list(findings)


def train_and_score(train_file: Path, test_file: str, directory: Path, options: dict[str, Any]) -> float:
    """String F1 on ``test_file`` after training on ``train_file``; computed once for the same files and options."""
    done = json.dumps([file_digest(train_file), file_digest(Path(test_file)), options])
    mark = directory / "done.json"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != done:
        filled = {name: train_file if value == "{train}" else value for name, value in options.items()}
        flags = [part for name, value in filled.items() for part in (f"--{name}", value)]
        call(TRAINING, *flags, "--output_dir", directory / "model", "--overwrite_output_dir")
        call("eval", "--model", directory / "model" / BEST, "--test_file", test_file, "--report_dir", directory)
        write_text(mark, done)
    return read_json(directory / REPORT_FIGURES)["string_f1"]["overall"]["f1"]


def table(figures: dict[str, Any]) -> Table:
    """The figures of one rate for the terminal."""
    title = f"{figures['faults']} faults, {figures['rate']:.0%} of the mentions: {', '.join(figures['kinds'])}"
    shown = plain_table(title, "order", f"precision of the first {FIRST}", "area under the curve", "places")
    for name, each in figures["orders"].items():
        shown.add_row(name, f"{each['precision']:.2f}", f"{each['area']:.3f}", f"{each['places']:,}")
    shown.add_row(f"review, right proposals among the first {FIRST}", f"{figures['right_proposals']:.2f}", "", "")
    left = f"{figures['faults_left']} faults left after {figures['decisions']} decisions"
    shown.add_row(left, "", "", "")
    for name, f1 in figures.get("f1", {}).items():
        shown.add_row(f"F1 after training on the {name} corpus", f"{f1:.4f}", "", "")
    if figures.get("won_back") is not None:
        shown.add_row("share of the lost F1 that is won back", f"{figures['won_back']:.2f}", "", "")
    return shown


if __name__ == "__main__":
    run(main)
