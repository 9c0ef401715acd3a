"""The training script with one thing changed that it has no option for, to see what that is worth.

    python benchmarks/altered_training.py focal RUN/training_args.json --output_dir outputs/altered/focal
    python benchmarks/altered_training.py first-window RUN/training_args.json --output_dir outputs/altered/first-window
    python benchmarks/altered_training.py replace --gazetteer Procedure=procedures.json RUN/training_args.json \\
        --output_dir outputs/altered/replace

RUN is a finished run of scripts/train_gliner2_korean_encoder.py; all flags of that script may follow. Then compare both
with `scripts/eval.py --model outputs/altered/focal/best --compare RUN/best`.

focal: spans that the model is sure of weigh less, by (1 - p)^gamma. first-window: only the first window of a training
document is learned from, as truncation has it. replace: a share of the training mentions that have a gazetteer for
their label become a name of it, one that ends in a consonant for one that does, so that the particle after it fits.
Validation documents are left as they are.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from pathlib import Path
from unittest.mock import patch

import torch.nn.functional as F
from datasets import Dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import train_gliner2_korean_encoder as training

from glinerko.cli import run
from glinerko.data import Example, label_schema, read_gazetteer
from glinerko.errors import DataError

HEAD = re.compile(r"[^-(\[_]*")  # of a price list's entry: what is done, without where and how


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("alteration", choices=["focal", "first-window", "replace"])
    parser.add_argument("--gamma", type=float, default=2.0, help="of focal (default: 2)")
    parser.add_argument("--gazetteer", action="append", default=[], help="label=file.json, of replace; once a label")
    parser.add_argument("--share", type=float, default=0.3, help="of the mentions, of replace (default: 0.3)")
    args, flags = parser.parse_known_args()
    sys.argv[1:] = flags
    cross_entropy, cut, load = F.binary_cross_entropy_with_logits, training.training_windows, training.load_data
    names = dict(map(read_gazetteer, args.gazetteer))
    if args.alteration == "replace" and not names:
        parser.error("replace needs a --gazetteer")

    def focal(scores, targets, reduction):
        loss = cross_entropy(scores, targets, reduction=reduction)
        return loss * (1 - (-loss).exp()) ** args.gamma  # exp(-loss) is the probability of what is right

    def first_windows(annotated, schema):
        return cut(annotated.map(lambda row: {"windows": row["windows"][:1]}), schema)

    def replaced(data_args, seed, console):
        rows, *more = load(data_args, seed, console)
        return {**rows, "training": replace_mentions(rows["training"], names, args.share, seed)}, *more

    with {
        "focal": patch.object(F, "binary_cross_entropy_with_logits", focal),  # gliner2 has it for spans alone
        "first-window": patch.object(training, "training_windows", first_windows),
        "replace": patch.object(training, "load_data", replaced),
    }[args.alteration]:
        training.main()


def replace_mentions(rows: Dataset, names: dict[str, list[str]], share: float, seed: int) -> Dataset:
    """``rows`` where a ``share`` of the spans of the labels in ``names``, those that overlap no other, are a name.

    Raises:
        DataError: no row has a label of ``names``.
    """
    unknown = names.keys() - set(label_schema(rows).labels)
    if unknown:
        raise DataError(f"--gazetteer: the documents have no label {', '.join(sorted(unknown))}")
    draw = random.Random(seed)
    heads = {(label, HEAD.match(name)[0].strip()) for label, found in names.items() for name in found}
    choices: dict[tuple[str, bool], list[str]] = {}
    for label, name in sorted(heads):
        if name:
            choices.setdefault((label, ends_in_consonant(name)), []).append(name)
    result = []
    for row in rows:
        example = Example.from_row(row)
        text, position, mentions = "", 0, []
        spans = sorted(example.gold_spans)
        for start, end, label in spans:
            mention, begin = example.text[start:end], start + len(text) - position
            alone = sum(first < end and start < last for first, last, _ in spans) == 1
            group = choices.get((label, ends_in_consonant(mention)))
            if alone and group and draw.random() < share:
                mention = draw.choice(group)
                text += example.text[position:start] + mention
                position = end
            where = {"start": begin, "end": begin + len(mention)}
            mentions.append({"label": label, "text": mention, "spans": [where]})
        result.append({**row, "text": text + example.text[position:], "mentions": mentions})
    return Dataset.from_list(result, features=rows.features)


def ends_in_consonant(name: str) -> bool:
    """Whether the last character is a Hangul syllable with a final consonant."""
    return "가" <= name[-1] <= "힣" and (ord(name[-1]) - ord("가")) % 28 > 0


if __name__ == "__main__":
    run(main)
