"""What no training changes: how much of labelled documents can be found at all, and how far mere names go.

    python benchmarks/ceilings.py --model outputs/medical/best --train_file train.jsonl --test_file test.jsonl \\
        --gazetteer Procedure=procedures.json Biomarker=biomarkers.json

The string F1 of a perfect model, for the documents of --test_file: with windows, and where only the first window of a
document is read, as truncation has it; by word splitter and greatest width. Beside it the F1 of dictionaries: of the
mentions of --train_file, of the names that gazetteers list under "entries", and of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import Example, Mention, load_rows, read_gazetteer
from glinerko.files import write_json
from glinerko.hub import load_extractor
from glinerko.metrics import Scores, match_dictionary, score_strings
from glinerko.reports import score_table
from glinerko.targets import annotate, classify_spans, perfect_spans
from glinerko.words import load_word_splitter, split_batch

WIDTHS, SPLITTERS = (8, 12), ("korean", "kiwi", "whitespace", "char")


@dataclass
class Arguments:
    model: str = field(metadata={"help": "whose windows and labels count: Hub id or directory"})
    train_file: str = field(metadata={"help": "labelled documents, JSON lines"})
    test_file: str = field(metadata={"help": "others to score, JSON lines"})
    gazetteer: list[str] = field(default_factory=list, metadata={"help": "label=file.json, one or more"})
    output_file: str = field(default="outputs/benchmarks/ceilings.json", metadata={"help": "the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    model = load_extractor(args.model)
    schema, limits = model.label_schema, model.window_limits
    rows, _ = load_rows(args.test_file)
    training = [Example.from_row(row) for row in load_rows(args.train_file)[0]]
    annotated = annotate(rows, model.processor, schema, max_width=model.max_width, **limits)
    examples = [Example.from_row(row) for row in annotated]
    texts = [example.text for example in examples]
    words, windows = (
        [[(p["start"], p["end"]) for p in row[part]] for row in annotated] for part in ("words", "windows")
    )

    def ceiling(words: Sequence, windows: Sequence, width: int) -> Scores:
        perfect = [
            perfect_spans(example, classify_spans(example, *each, width))
            for example, *each in zip(examples, words, windows, strict=True)
        ]
        return score_strings(examples, perfect, schema.labels)

    def dictionary(names: list[Example]) -> Scores:
        return score_strings(examples, match_dictionary(names, texts, schema.labels), schema.labels)

    found = {
        f"windows of {limits['max_length']} pieces": ceiling(words, windows, model.max_width),
        "the first window alone": ceiling(words, [each[:1] for each in windows], model.max_width),
    }
    for name in SPLITTERS:
        split = split_batch(load_word_splitter(name), texts)
        whole = [[(0, len(each))] for each in split]
        found |= {f"{name}, at most {width} words": ceiling(split, whole, width) for width in WIDTHS}
    names = [
        Example(name, "", schema.labels, (Mention(label, name, ()),))
        for label, names in map(read_gazetteer, args.gazetteer)
        for name in names
    ]
    found["dictionary of training mentions"] = dictionary(training)
    if names:
        found |= {"gazetteers": dictionary(names), "both": dictionary(training + names)}
    make_console().print(score_table(f"string F1, {len(examples)} documents", found, list(schema.labels)))
    result = {"arguments": vars(args), **{name: scores.to_dict() for name, scores in found.items()}}
    write_json(Path(args.output_file), result)


if __name__ == "__main__":
    run(main)
