"""What several models find together: the mean of their scores, from the variants of a cross-validation.

    python benchmarks/ensemble.py --names default other --only 0 1
    python benchmarks/ensemble.py --names default other third --cross_validation outputs/cross-validation

It reads the candidates that each variant wrote for the held-out documents; no model is run. Nothing is tuned:
the threshold is the mean of those that the models chose on their validation documents. `eval.py --average` does the
same for models on a test file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, read_json, write_json
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Example
from glinerko.model.ensemble import average_spans
from glinerko.model.prediction import Predictions
from glinerko.scoring.candidates import read_candidates
from glinerko.scoring.metrics import Scores, compare_scores, metric_title, score_strings
from glinerko.sharing.tables import comparison_table
from glinerko.training.checkpoints import REPORT_CANDIDATES, REPORT_FIGURES

METRIC = "string_f1"


@dataclass
class Arguments:
    names: list[str] = option(help="variants to average, at least two")
    cross_validation: str = option("outputs/cross-validation", "directory of the cross-validation")
    only: list[int] | None = option(None, "folds, counted from 0 (default: all)", at_least=0)
    output_file: str = option("outputs/benchmarks/ensemble.json", "file for the figures")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    directory = Path(args.cross_validation)
    folds = [directory / f"fold-{number}" for number in args.only or ()] or sorted(directory.glob("fold-*"))
    if not folds:
        raise GlinerkoError(f"{directory}: no fold; run scripts/cross_validate.py first")
    groups = {"the mean": args.names, **{name: [name] for name in args.names}}
    scored = [(title, *score(folds, names)) for title, names in groups.items()]
    compared = compare_scores([(title, threshold, whole) for title, threshold, whole, _ in scored])
    unseen = compare_scores([(title, threshold, part) for title, threshold, _, part in scored])
    console = make_console()
    console.print(comparison_table(compared, metric_title(METRIC)))
    console.print(comparison_table(unseen, f"{metric_title(METRIC)} of unseen mentions"))
    write_json(Path(args.output_file), {"folds": [fold.name for fold in folds], "all": compared, "unseen": unseen})


def score(folds: Sequence[Path], names: Sequence[str]) -> tuple[float, Scores, Scores]:
    """The mean threshold of the models in all folds, the scores of their mean, and those of unseen mentions only."""
    thresholds, counts, labels = [], ([], []), ()
    for fold in folds:
        training, held_out = (load_rows(str(fold / f"{side}.jsonl"))[0] for side in ("train", "dev"))
        labels = labels or label_schema(training).labels
        examples = list(map(Example.from_row, held_out))
        reports = [fold / name / "dev" for name in names]
        threshold = mean(read_json(report / REPORT_FIGURES)["threshold"] for report in reports)
        models = [read_candidates([str(report / REPORT_CANDIDATES)], examples, labels) for report in reports]
        found = Predictions([average_spans(each) for each in zip(*models, strict=True)]).at_threshold(threshold)
        seen = {pair for row in training for pair in Example.from_row(row).gold_strings}
        for own, leave_out in zip(counts, (set(), seen), strict=True):
            own.append(score_strings(examples, found, labels, leave_out).counts)
        thresholds.append(threshold)
    return mean(thresholds), *(Scores.from_counts(np.concatenate(own), labels) for own in counts)


if __name__ == "__main__":
    run(main)
