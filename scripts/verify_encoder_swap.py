"""Judge an encoder before you pay for a GPU: can it go into GLiNER2, should it, and what would fail later?

    python scripts/verify_encoder_swap.py
    python scripts/verify_encoder_swap.py --korean_encoder ENCODER --data_file train.jsonl
    python scripts/verify_encoder_swap.py --all_candidates

Needs no GPU. An encoder is inspected, swapped in, trained for a moment, saved, reloaded and used for extraction. With
--all_candidates, each encoder of a list is judged by its config and tokenizer files only. The exit status is 0 only if
nothing fails.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset
from rich.console import Console
from tqdm import tqdm

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import LoadError, SwapError, check_writable, write_json, write_text
from glinerko.corpus.reading import load_rows
from glinerko.model.swap import SwapArguments
from glinerko.sharing.tables import as_markdown, check_table, choice_table, escape_markdown, inspection_table
from glinerko.verification.candidates import Verdict, measure_relative_time, read_candidates, read_encoder_config
from glinerko.verification.checks import Check, Status, judge_candidate, trial_texts, verify_swap

DATA = Path(__file__).parents[1] / "data"


@dataclass
class Arguments(SwapArguments):
    all_candidates: bool = option(
        False, "check of all encoders in candidates_file, by their files only, instead of one swap"
    )
    candidates_file: str = option(str(DATA / "encoder_candidates.yaml"), "YAML list of {id: ..., domain: ...}")
    data_file: str | None = option(None, "documents in the format of training (default: the bundled sample corpus)")
    report_dir: str = option("outputs/verify", "directory for report.md and report.json")
    seed: int = option(42, "random seed", at_least=0)


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)  # silent libraries: the checks print what matters
    console = make_console()
    report = check_writable(args.report_dir)
    rows, _ = load_rows(args.data_file or str(DATA / "sample" / "train.jsonl"))
    if args.data_file is None:
        console.print("No --data_file: segmentation and reach are those of the bundled sample corpus.", style="yellow")
    judge = judge_candidates if args.all_candidates else judge_swap
    markdown, figures, failed = judge(args, rows, console)
    write_json(report / "report.json", figures)
    write_text(report / "report.md", markdown)
    console.print(f"Report   {report / 'report.md'}, {report / 'report.json'}")
    sys.exit(failed)


def judge_candidates(args: Arguments, rows: Dataset, console: Console) -> tuple[str, dict, bool]:
    """Judge every candidate, and show the criteria of the choice side by side."""
    base = read_encoder_config(args.base_model)
    texts, terms = trial_texts(rows)
    inspections = [
        judge_candidate(name, base, texts, terms, domain)
        for name, domain in tqdm(read_candidates(args.candidates_file), "Inspecting", unit="candidate", leave=False)
    ]
    if all(candidate.verdict is Verdict.SKIPPED for candidate in inspections):
        reason = inspections[0].reason if inspections else "it is empty"
        raise LoadError(f"no candidate of {args.candidates_file} could be reached: {reason}")
    measure_relative_time(tqdm(inspections, "Timing", unit="candidate", leave=False), base)
    tables = [inspection_table(inspections), choice_table(inspections)]
    for table in tables:
        console.print(table)
    markdown = "# Encoder candidates\n\n" + "\n".join(map(as_markdown, tables))
    return markdown, {"base_model": args.base_model, "candidates": [each.to_dict() for each in inspections]}, False


def judge_swap(args: Arguments, rows: Dataset, console: Console) -> tuple[str, dict, bool]:
    """Run every check on one encoder, and print each result at once."""
    if args.encoder is None:
        raise SwapError("--korean_encoder none: there is no swap to verify")
    console.print(f"{args.encoder} into {args.base_model}", style="bold")
    checks: list[Check] = []
    for check in verify_swap(args.base_model, args.encoder, rows, seed=args.seed, **args.options):
        checks.append(check)
        console.print(check_table([check], header=False))
    failed = [check.name for check in checks if check.status is Status.FAIL]
    verdict = f"Fails: {', '.join(failed)}." if failed else "The swap works: nothing failed."
    console.print(verdict, style="bold red" if failed else "bold green")
    title = escape_markdown(f"{args.encoder} into {args.base_model}")
    markdown = f"# {title}\n\n{verdict}\n\n{as_markdown(check_table(checks))}"
    named = {"base_model": args.base_model, "encoder": args.encoder, "passed": not failed}
    return markdown, {**named, "checks": [asdict(check) for check in checks]}, bool(failed)


if __name__ == "__main__":
    run(main)
