"""Judge an encoder before a GPU is paid for: can it go into GLiNER2, should it, and what would fail later?

    python scripts/verify_encoder_swap.py
    python scripts/verify_encoder_swap.py --korean_encoder ENCODER --data_file train.jsonl
    python scripts/verify_encoder_swap.py --all_candidates

Needs no GPU. Without --data_file the bundled sample corpus serves. An encoder is inspected, swapped in, trained for a
moment, saved, reloaded and made to extract; with --all_candidates each one of the list is inspected from its
configuration and tokenizer files alone. The exit status is 0 only if nothing fails.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from glinerko.checks import Check, Status, trial_texts, verify_swap
from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import load_rows
from glinerko.encoders import Verdict, inspect_encoder, measure_relative_time, read_candidates, read_encoder_config
from glinerko.errors import LoadError
from glinerko.files import write_json
from glinerko.reports import as_markdown, check_table, choice_table, inspection_table

DATA = Path(__file__).parents[1] / "data"


@dataclass
class Arguments:
    base_model: str = field(default="fastino/gliner2-base-v1", metadata={"help": "GLiNER2: Hub id or directory"})
    korean_encoder: str = field(
        default="team-lucid/deberta-v3-base-korean", metadata={"help": "encoder to judge: Hub id or directory"}
    )
    all_candidates: bool = field(default=False, metadata={"help": "inspect every encoder of --candidates_file instead"})
    candidates_file: str = field(
        default=str(DATA / "encoder_candidates.yaml"), metadata={"help": "YAML list of {id: ..., domain: ...}"}
    )
    data_file: str | None = field(
        default=None, metadata={"help": "your documents, as for training; the bundled sample corpus by default"}
    )
    report_dir: str = field(default="outputs/verify", metadata={"help": "where report.md and report.json go"})
    head_init: str = field(
        default="keep", metadata={"help": "keep the heads bit for bit or start new ones", "choices": ["keep", "reinit"]}
    )
    max_width: int = field(default=12, metadata={"help": "widest span that is scored, in words"})
    seed: int = field(default=42, metadata={"help": "of new rows, new heads and the trial"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)  # the checks speak for themselves
    console = make_console()
    rows, _ = load_rows(args.data_file or str(DATA / "sample" / "train.jsonl"))
    if args.data_file is None:
        console.print("[yellow]No --data_file: segmentation and reach are those of the bundled sample corpus.")
    judge = judge_candidates if args.all_candidates else judge_swap
    markdown, figures, failed = judge(args, rows, console)
    report = Path(args.report_dir)
    report.mkdir(parents=True, exist_ok=True)
    (report / "report.md").write_text(markdown, encoding="utf-8")
    write_json(report / "report.json", figures)
    console.print(f"Report   {report / 'report.md'}, {report / 'report.json'}", highlight=False)
    sys.exit(failed)


def judge_candidates(args: Arguments, rows, console: Console) -> tuple[str, dict, bool]:
    """Inspect every candidate, and lay the criteria of the choice side by side."""
    base = read_encoder_config(args.base_model)
    texts, terms = trial_texts(rows)
    candidates = read_candidates(args.candidates_file)
    inspections = [
        inspect_encoder(candidate["id"], base, texts, terms, candidate.get("domain"))
        for candidate in tqdm(candidates, desc="Inspecting", unit="candidate", leave=False)
    ]
    if all(found.verdict is Verdict.SKIPPED for found in inspections):
        raise LoadError(f"no candidate of {args.candidates_file} could be reached: {inspections[0].reason}")
    measure_relative_time(tqdm(inspections, desc="Timing", unit="candidate", leave=False), base)
    tables = [inspection_table(inspections), choice_table(inspections)]
    for table in tables:
        console.print(table)
    markdown = "# Encoder candidates\n\n" + "\n".join(map(as_markdown, tables))
    return markdown, {"base_model": args.base_model, "candidates": [found.to_dict() for found in inspections]}, False


def judge_swap(args: Arguments, rows, console: Console) -> tuple[str, dict, bool]:
    """Run every check on one encoder, and say each result as it comes."""
    console.print(f"{args.korean_encoder} into {args.base_model}", highlight=False, style="bold")
    checks: list[Check] = []
    swap = verify_swap(
        args.base_model, args.korean_encoder, rows, max_width=args.max_width, head_init=args.head_init, seed=args.seed
    )
    for check in swap:
        checks.append(check)
        console.print(check_table([check], header=False))
    failed = [check.name for check in checks if check.status is Status.FAIL]
    verdict = f"Fails: {', '.join(failed)}." if failed else "The swap works: nothing failed."
    console.print(verdict, style="bold red" if failed else "bold green")
    markdown = f"# {args.korean_encoder} into {args.base_model}\n\n{verdict}\n\n{as_markdown(check_table(checks))}"
    named = {"base_model": args.base_model, "encoder": args.korean_encoder, "passed": not failed}
    return markdown, {**named, "checks": [asdict(check) for check in checks]}, bool(failed)


if __name__ == "__main__":
    run(main)
