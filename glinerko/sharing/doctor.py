"""The findings of the doctor as tables, and as one page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from glinerko.corpus.diagnosis import EXAMPLES, SIMILAR, Diagnosis
from glinerko.corpus.suggestions import Suggestion
from glinerko.sharing.tables import Table, plain_rows, plain_table
from glinerko.training.trial import RunEstimate

SHOWN = 20
"""The number of strings or groups that a table shows at most; doctor.json has all."""
_STYLE = """
body { font: 15px/1.6 system-ui, "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", sans-serif; max-width: 1080px;
  margin: 0 auto; padding: 24px 16px 80px; color: #1b1f24; } h1 { font-size: 24px; }
table { border-collapse: collapse; margin: 24px 0; } caption { text-align: left; font-weight: 600; }
th, td { padding: 2px 12px; border-bottom: 1px solid #d8dde3; text-align: right; overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; white-space: pre-wrap; }
"""


def diagnosis_tables(diagnosis: Diagnosis) -> list[Table]:
    """The tables of a diagnosis; a table without a finding is left out."""
    return [
        _overview(diagnosis),
        _balance(diagnosis),
        *([_disagreements(diagnosis)] if diagnosis.disagreements else []),
        *([_duplicates(diagnosis)] if diagnosis.near_duplicates else []),
        *([_personal_data(diagnosis)] if diagnosis.personal_data else []),
    ]


def _overview(diagnosis: Diagnosis) -> Table:
    table = plain_table("Documents", "", *diagnosis.documents)
    table.add_row("documents", *(f"{count:,}" for count in diagnosis.documents.values()))
    table.add_row("  without a mention", *(f"{count:,}" for count in diagnosis.without_a_mention.values()))
    if any(diagnosis.repeated_ids.values()):
        repeated = (f"{count:,}" for count in diagnosis.repeated_ids.values())
        table.add_row("  with the id of another document", *repeated, style="yellow")
    if diagnosis.seen:
        shares = (diagnosis.seen.get(split) for split in diagnosis.documents)
        table.add_row("mentions that training has", *("" if share is None else f"{share:.1%}" for share in shares))
    return table


def _balance(diagnosis: Diagnosis) -> Table:
    table = plain_table("Labels in training", "", "documents", "mentions", "strings", "median length", "longest")
    for label, each in diagnosis.balance.items():
        numbers = each.documents, each.mentions, each.strings, each.median_length, each.longest
        table.add_row(label, *(f"{number:,g}" for number in numbers))
    return table


def _disagreements(diagnosis: Diagnosis) -> Table:
    """The strings, and the number of documents with each way to label them."""
    found = diagnosis.disagreements
    doubtful = sum(use.doubtful for use in found)
    title = f"{len(found):,} strings are not labelled the same everywhere: look at {doubtful:,} documents or more"
    table = plain_table(f"{title} to look at", "string", "doubtful", "labelled", "not labelled", "for example in")
    for use in found[:SHOWN]:
        labelled = ", ".join(f"{label} {len(ids):,}" for label, ids in use.labelled.items())
        examples = ", ".join(use.unlabelled[:EXAMPLES])
        table.add_row(use.string, f"{use.doubtful:,}", labelled, f"{len(use.unlabelled):,}", examples)
    return table


def _duplicates(diagnosis: Diagnosis) -> Table:
    groups = diagnosis.near_duplicates
    across = sum(len({name.split("/")[0] for name in group}) > 1 for group in groups)
    title = f"{len(groups):,} groups of documents share {SIMILAR:.0%} of their text, {across:,} of them across splits"
    table = plain_table(title, "documents", "number")
    for group in sorted(groups, key=len, reverse=True)[:SHOWN]:
        more = ", ..." if len(group) > EXAMPLES else ""
        table.add_row(", ".join(group[:EXAMPLES]) + more, f"{len(group):,}")
    return table


def _personal_data(diagnosis: Diagnosis) -> Table:
    table = plain_table("Text that looks like personal data", "kind", "documents", "for example")
    for kind, ids in diagnosis.personal_data.items():
        table.add_row(kind, f"{len(ids):,}", ", ".join(ids[:EXAMPLES]))
    return table


def suggestion_table(suggestions: Sequence[Suggestion]) -> Table:
    """Words for the user dictionary."""
    title = "Words for --user_dictionary, tried on documents that did not suggest them"
    table = plain_table(title, "word", "mentions gained", "lost", "documents")
    for each in suggestions[:SHOWN]:
        table.add_row(each.form, f"{each.gained:,}", f"{each.lost:,}", f"{each.documents:,}")
    return table


def estimate_table(estimate: RunEstimate) -> Table:
    """The time and memory of a run."""
    table = plain_table(f"A run on this machine ({estimate.device}), without evaluation", "", "")
    table.add_row("windows of an epoch", f"{estimate.windows:,}")
    table.add_row("windows a second", f"{estimate.windows_per_second:.1f}")
    table.add_row("minutes an epoch", f"{estimate.minutes_per_epoch:.1f}")
    table.add_row("memory", f"{estimate.memory_gb:.1f} GB")
    return table


def tables_page(title: str, tables: Sequence[Table]) -> str:
    """One HTML page with these tables. It loads nothing from other files or the web."""
    parts = []
    for table in tables:
        headers, *rows = plain_rows(table)
        lines = [_line("th", headers), *(_line("td", row) for row in rows)]
        parts.append(f"<table><caption>{escape(str(table.title))}</caption>\n{''.join(lines)}</table>")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>\n{''.join(parts)}"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>\n"
