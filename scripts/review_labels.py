"""Find the labels of a corpus that are probably wrong, decide about them in a browser, and write the corrected corpus.

    python scripts/cross_validate.py recipes/real_corpus.yaml --train_file train.jsonl
    python scripts/review_labels.py --train_file train.jsonl --cross_validation outputs/cross-validation
    python scripts/review_labels.py --train_file train.jsonl --apply decisions.jsonl --output_file corrected.jsonl

The evidence comes from the corpus itself: the scores of models that were not trained on the document (--candidates,
files that eval.py writes, or --cross_validation), and how the same strings are labelled in other documents. How much
each kind of evidence counts is fitted to the corpus. The output directory gets findings.jsonl, review.json, the page
index.html (keys: a accept, r reject, s skip, arrows), and documents with the proposals for Label Studio and doccano.

--apply reads the decisions that the page saves. Only accepted proposals change a row; its mentions then have offsets.
OUTPUT_FILE.changes.jsonl lists every change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import (
    DataError,
    GlinerkoError,
    check_output,
    check_writable,
    file_digest,
    read_json,
    replace_file,
    write_json,
    write_json_lines,
    write_text,
)
from glinerko.corpus.corrections import ACCEPT, Change, correct_lines, correct_row, read_decisions, read_findings
from glinerko.corpus.formats import FORMATS
from glinerko.corpus.formats.documents import FormatOptions
from glinerko.corpus.parsing import unparse_row
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.words import load_word_splitter, word_splitter_names
from glinerko.model.spans import MAX_WIDTH
from glinerko.scoring.candidates import find_candidates, read_candidates
from glinerko.scoring.review import Finding, review_labels
from glinerko.sharing.review_page import render_review
from glinerko.sharing.tables import Table, plain_table
from glinerko.training.checkpoints import REPORT_FIGURES

FINDINGS, RECORD, PAGE = "findings.jsonl", "review.json", "index.html"
TOOLS = {"label_studio": "label_studio.json", "doccano": "doccano.jsonl"}
"""The file for each annotation tool, by the name of its format."""


@dataclass
class Arguments:
    train_file: str = option(help="documents to review, JSON lines")
    candidates: list[str] | None = option(None, "out-of-fold candidates.jsonl files; each document in one of them")
    cross_validation: str | None = option(None, "output directory of cross_validate.py, instead of candidates")
    name: str = option("default", "name of the variant in cross_validation")
    word_splitter: str = option("korean", "word splitter of the models", choices=word_splitter_names)
    user_dictionary: str | None = option(None, "file of words for the Korean splitter, as in training")
    max_width: int = option(MAX_WIDTH, "widest span that the models score, in words", at_least=1)
    min_score: float = option(
        0.2, "lowest score of a finding: how sure it is that the label is wrong", at_least=0, at_most=1
    )
    max_findings: int = option(1000, "number of findings to write at most, the most doubtful", at_least=1)
    output_dir: str = option("outputs/review", "directory for the findings; with apply, the one that has them")
    apply: str | None = option(None, "file of decisions to apply, instead of a review")
    output_file: str | None = option(None, "corrected documents to write, with apply")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=True)
    console = make_console()
    if (args.apply is None) != (args.output_file is None):
        raise GlinerkoError("pass --apply decisions.jsonl and --output_file corrected.jsonl together")
    if args.apply is not None:
        apply(args, console)
    else:
        review(args, console)


def review(args: Arguments, console: Console) -> None:
    """Rank the places of a corpus and write them for people."""
    if (args.candidates is None) == (args.cross_validation is None):
        raise GlinerkoError("pass --candidates FILE... or --cross_validation DIRECTORY")
    output = check_writable(args.output_dir)
    beside = [f"{file}{suffix}" for name, file in TOOLS.items() for suffix in FORMATS[name].writer.suffixes]
    for name in (FINDINGS, RECORD, PAGE, *TOOLS.values(), *beside):
        check_output(output / name, args.train_file, *(args.candidates or ()))

    # 1. The documents, and what models that were not trained on them say.
    rows, _ = load_rows(args.train_file)
    schema = label_schema(rows).entities_only()
    examples = [Example.from_row(row) for row in rows]
    files = args.candidates or find_candidates(args.cross_validation, args.name, examples)
    known = find_asked_labels(files)
    asked = [label for label in schema.labels if label in known]
    if 0 < len(asked) < len(schema.labels):
        console.print(f"The models know {', '.join(asked)} only: other labels are not reviewed", style="yellow")
        examples = [Example.from_row(row) for row in load_rows(args.train_file, labels=asked)[0]]
    candidates = read_candidates(files, examples, schema.labels)
    splitter = load_word_splitter(args.word_splitter, user_dictionary=args.user_dictionary)
    words = splitter.split_batch(rows["text"][:])

    # 2. The places where the evidence contradicts the label.
    ranked = review_labels(examples, candidates, words, args.max_width)
    doubtful = [finding for finding in ranked.findings if finding.score >= args.min_score]
    findings = doubtful[: args.max_findings]
    records = [
        to_record(number, finding, examples[finding.document], rows["place"][finding.document])
        for number, finding in enumerate(findings, 1)
    ]
    write_json_lines(output / FINDINGS, records)

    # 3. What people look at.
    digests = {"corpus": file_digest(Path(args.train_file)), "findings": file_digest(output / FINDINGS)}
    record = {
        "train_file": args.train_file,
        "candidates": files,
        **digests,
        "documents": len(rows),
        "spans": ranked.items,
        "weights": ranked.weights,
        "kinds": count_kinds(findings),
    }
    write_json(output / RECORD, record)
    places = [record["place"] for record in records]
    write_text(output / PAGE, render_review(Path(args.train_file).name, findings, examples, places, digests))
    write_tasks(rows, findings, records, schema, output)
    console.print(kind_table(findings, len(doubtful), args.max_findings))
    console.print(f"Review   {output / PAGE}; it and {FINDINGS} show text of the corpus", soft_wrap=True)
    console.print(
        f"Next     python scripts/review_labels.py --train_file {args.train_file} --output_dir {args.output_dir} "
        "--apply decisions.jsonl --output_file corrected.jsonl",
        soft_wrap=True,
    )


def find_asked_labels(files: Sequence[str]) -> set[str]:
    """The labels for which the models of ``files`` were asked, if the reports of the evaluations lie beside them."""
    reports = [file for each in files if (file := Path(each).with_name(REPORT_FIGURES)).is_file()]
    return {label for report in reports for label in read_json(report)["data"]["labels"]}


def to_record(number: int, finding: Finding, example: Example, place: str) -> dict[str, Any]:
    """A line of the findings file. ``place`` is that of the document in its file: ids may be repeated."""
    sides = {"current": finding.current, "proposed": finding.proposed}
    return {
        "finding": number,
        "id": example.id,
        "place": place,
        "kind": finding.kind.value,
        "score": round(finding.score, 4),
        **{name: [item.span.to_record(example.text) for item in side] for name, side in sides.items()},
        "evidence": [item.to_record(example.text) for side in sides.values() for item in side],
    }


def count_kinds(findings: Iterable[Finding]) -> dict[str, int]:
    return dict(Counter(finding.kind.value for finding in findings).most_common())


def kind_table(findings: Sequence[Finding], doubtful: int, most: int) -> Table:
    """The number of findings of each kind."""
    table = plain_table("Doubtful places", "kind", "places")
    for kind, count in count_kinds(findings).items():
        table.add_row(kind, f"{count:,}")
    table.add_row("all", f"{len(findings):,}", style="bold")
    if doubtful > most:
        table.add_row("not written (--max_findings)", f"{doubtful - most:,}", style="yellow")
    return table


def write_tasks(
    rows: Dataset,
    findings: Sequence[Finding],
    records: Sequence[Mapping[str, Any]],
    schema: LabelSchema,
    output: Path,
) -> None:
    """Write the documents with findings as tasks whose labels are the proposals, the most doubtful document first.

    The score of a task is that of its first finding, and the score of a proposed mention that of its finding.
    """
    of_documents: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for finding, record in zip(findings, records, strict=True):
        of_documents[finding.document].append(record)
    for name, file_name in TOOLS.items():
        with replace_file(output / file_name) as file:
            writer = FORMATS[name].writer(file, list(schema.labels), FormatOptions())
            writer.start()
            for document, own in of_documents.items():
                row = correct_row(unparse_row(rows[document]), rows[document], map(Change.from_finding, own))
                scores = {
                    (span["label"], span["start"], span["end"]): record["score"]
                    for record in own
                    for span in record["proposed"]
                }
                for label, mention in writer.mentions(row):
                    if (key := (label, mention["start"], mention["end"])) in scores:
                        mention["score"] = scores[key]
                writer.add({**row, "score": own[0]["score"]}, predicted=True)
                writer.written += 1
            writer.finish()
        for suffix, content in writer.beside.items():
            write_text(f"{output / file_name}{suffix}", content)


def apply(args: Arguments, console: Console) -> None:
    """Write the corpus with the accepted proposals, and a log of the changes."""
    source = Path(args.output_dir) / FINDINGS
    log = f"{args.output_file}.changes.jsonl"
    if not source.is_file():
        raise DataError(f"{source}: no such file; --output_dir names the directory of the review")
    for target in (args.output_file, log):
        for read in (args.train_file, args.apply, str(source)):
            check_output(target, read)
    rows, _ = load_rows(args.train_file)
    digests = {"corpus": file_digest(Path(args.train_file)), "findings": file_digest(source)}
    findings = read_findings(source)
    decisions = read_decisions(args.apply, findings, digests)
    changes: dict[str, list[Change]] = defaultdict(list)
    for finding in findings:
        if decisions.get(finding.finding) == ACCEPT:
            changes[finding.place].append(finding)
    with replace_file(args.output_file) as file:
        file.writelines(correct_lines(args.train_file, rows, changes))
    texts = dict(zip(rows["place"], rows["text"], strict=True))
    write_json_lines(Path(log), (each.to_record(texts[place]) for place, own in changes.items() for each in own))
    counts = Counter(decisions.values())
    console.print(
        f"{args.output_file}: {counts[ACCEPT]} proposals applied to {len(changes)} of {len(rows)} documents; "
        + ", ".join(f"{count} {name}" for name, count in counts.items() if name != ACCEPT)
        + f"{'; ' if len(counts) > 1 else ''}{len(findings) - len(decisions)} findings without a decision. "
        f"Changes: {log}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    run(main)
