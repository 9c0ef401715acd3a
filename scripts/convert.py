"""Turn the exports of annotation tools into rows to train on, and rows or predictions into files for these tools.

    python scripts/convert.py project-1-at-2025-01-01.json --output_file rows.jsonl
    python scripts/convert.py brat_directory more.jsonl --output_file rows.jsonl --labels Disease Drug
    python scripts/convert.py spans.jsonl --to label_studio --output_file tasks.json

The format is recognised from the content of each file, or named with --from:

    label_studio  JSON or JSON-MIN (not its CONLL)   conll     columns: word first, BIO/IOB/BIOES tag last
    doccano       JSONL                              klue      KLUE-NER: a character and a tag a line
    prodigy       JSONL: accepted answers            kbmc      token string, tag string: CSV, Parquet, data set
    argilla       records in JSON, of 1.x or 2.x     table     CSV or XLSX: a text, and mentions by label
    brat          directory of .txt and .ann         gliner    training data of GLiNER v1
    spacy         DocBin                             gliner2   rows of this project and of gliner2
                                                     predictions  output of predict.py

Offsets that count another form of the text (UTF-16, line ends, Unicode forms, HTML, white space) are repaired if the
mention texts in the export prove how they were counted. OUTPUT_FILE.report.jsonl lists each repair. A bad record stops
the conversion; with --on_bad_row skip it is left out and listed. A file that cannot be read always stops it. The output
is replaced as a whole or not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text
from tqdm import tqdm

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import DataError, check_output, replace_file, write_json_lines, write_text
from glinerko.corpus.formats import FORMATS, READABLE, WRITABLE, recognise
from glinerko.corpus.formats.conversion import Account, Entry, Reading, convert, find_sources
from glinerko.corpus.formats.documents import FormatOptions
from glinerko.corpus.schema import check_labels
from glinerko.sharing.tables import Table

REPORT = ".report.jsonl"
"""What the name of the report adds to that of the output."""
SHOWN = 8
"""How many reasons of a kind the summary shows; the report has all."""


@dataclass
class Arguments:
    input_files: list[str] = option(help="files or directories to read; may be the first arguments, without the flag")
    output_file: str = option(help="file to write")
    from_format: str | None = option(None, "format of all files (--from; default: recognised)", choices=READABLE)
    to_format: str = option("gliner2", "format to write (--to); gliner2 means rows to train on", choices=WRITABLE)
    labels: list[str] | None = option(None, "labels that every document was annotated for (default: those that occur)")
    on_bad_row: str = option("raise", "reaction to a record that cannot be read or written", choices=["raise", "skip"])


def main() -> None:
    use_short_names(sys.argv)
    args, options = parse_arguments(Arguments, FormatOptions, description=__doc__)
    set_log_levels(is_main_process=True)
    labels = check_labels(args.labels or ())
    account, skip_bad = Account(), args.on_bad_row == "skip"
    report_file = f"{args.output_file}{REPORT}"
    with replace_file(args.output_file) as file:
        writer = convert(
            read_all(args, options, labels, account),
            lambda every: FORMATS[args.to_format].writer(file, every, options),
            account,
            labels,
            skip_bad,
        )
    for suffix, content in writer.beside.items():
        write_text(f"{args.output_file}{suffix}", content)
    write_json_lines(Path(report_file), account.report())
    console = make_console()
    console.print(summary(account))
    done = [f"{args.output_file}: {account.documents:,} documents"]
    done += [f"{args.output_file}{suffix}: labelling interface for these labels" for suffix in writer.beside]
    if account.entries:
        done.append(f"{report_file}: {len(account.entries):,} entries: what was repaired, noticed or left out")
    if args.to_format == "gliner2":
        done.append(f"Next: python scripts/train_gliner2_korean_encoder.py --train_file {args.output_file}")
    for line in done:
        console.print(line, soft_wrap=True)


def use_short_names(arguments: list[str]) -> None:
    """Allow ``--from`` and ``--to``, which cannot be names of fields, and input files without a flag."""
    for index, argument in enumerate(arguments[1:], 1):
        for name in ("from", "to"):
            if argument == f"--{name}" or argument.startswith(f"--{name}="):
                arguments[index] = argument.replace(f"--{name}", f"--{name}_format", 1)
    if len(arguments) > 1 and not arguments[1].startswith("-") and not arguments[1].endswith((".yaml", ".yml")):
        arguments.insert(1, "--input_files")


def read_all(
    args: Arguments, options: FormatOptions, labels: tuple[str, ...], account: Account
) -> Iterator[tuple[str, str, dict[str, Any], bool, bool]]:
    """The documents, as :func:`glinerko.corpus.formats.conversion.convert` takes them."""
    chosen = FORMATS.values() if args.from_format is None else [FORMATS[args.from_format]]
    suffixes = {suffix for each in chosen for suffix in each.suffixes}
    bar = tqdm(desc="Reading", unit=" documents", leave=False, disable=None)
    for source, named in find_sources(args.input_files, suffixes, account):
        for suffix in ("", REPORT, *FORMATS[args.to_format].writer.suffixes):
            check_output(f"{args.output_file}{suffix}", str(source.path))
        name = args.from_format or recognise(source)
        if name is None:
            is_empty = not any(line.strip() for _, line in source.lines())
            reason = "the file is empty" if is_empty else "not recognised as any format"
            if named:
                advice = "" if is_empty else f": name it with --from ({', '.join(READABLE)})"
                raise DataError(f"{source.path}: {reason}{advice}")
            account.entries.append(Entry("left out", reason, str(source.path), "the file"))
            continue
        kind = FORMATS[name]
        account.formats[name] += 1
        reading = Reading(kind.records, kind.parse, options, labels, args.on_bad_row == "skip")
        for place, row, predicted in reading.rows(source, account):
            bar.update()
            yield str(source.path), place, row, predicted, kind.one_label_set
    bar.close()


def summary(account: Account) -> Table:
    """The number of files, documents and mentions, and of everything that was changed or left out."""
    table = Table("Conversion", box=None, show_header=False, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, count in account.formats.items():
        table.add_row(f"files read as {name}" + (f": {FORMATS[name].note}" if FORMATS[name].note else ""), f"{count:,}")
    for encoding, count in account.encodings.items():
        if encoding != "utf-8":
            table.add_row(Text(f"  in {encoding.upper()}", "yellow"), f"{count:,}")
    table.add_row("documents", f"{account.documents:,}", style="bold")
    table.add_row("mentions", f"{account.mentions.total():,}")
    for label, count in account.mentions.items():
        table.add_row(f"  {label}", f"{count:,}")
    titles = {
        "repaired": "mentions in documents that were repaired",
        "noticed": "noticed",
        "left out": "records left out",
        "skipped": "bad records skipped",
        "not written": "mentions that the format cannot hold",
    }
    for what, title in titles.items():
        totals = account.totals(what)
        if totals:
            table.add_row(title, f"{totals.total():,}", style="yellow")
        for kind, count in totals.most_common(SHOWN):
            table.add_row(f"  {kind}", f"{count:,}")
        if len(totals) > SHOWN:
            table.add_row(f"  {len(totals) - SHOWN} other reasons, see the report", "")
    return table


if __name__ == "__main__":
    run(main)
