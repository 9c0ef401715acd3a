"""Make the data that recipes/related_labels.yaml trains on before it sees the corpus.

    python recipes/related_labels_data.py outputs/related --klue_file klue-ner.tsv \\
        --gazetteer Procedure=procedures.json Biomarker=biomarkers.json --labelled_file data/sample/train.jsonl

OUTPUT_DIR/text.txt is raw text for the encoder: the sentences of a KLUE-NER file and of other labelled documents,
without their labels, and the names that the gazetteers list under "entries", twenty on a line.

OUTPUT_DIR/related.jsonl has the same sentences with their labels: four KLUE sentences or eight others in a document. It
also has lists of names. One half of a list comes from a gazetteer, with the label of the gazetteer; the other half are
KLUE mentions with their labels. So the model can tell the label only from the name itself.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

from glinerko.cli import run
from glinerko.common import DataError, first_line
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example

DESCRIPTIONS = {
    "PS": "사람 이름",
    "LC": "장소, 지역",
    "OG": "기관, 단체, 회사",
    "DT": "날짜, 기간",
    "TI": "시각, 시간",
    "QT": "수량, 금액, 단위",
}
NAMES_IN_A_LIST = 12
HEAD = re.compile(r"[^-(\[]*")
"""The part of a price list's entry that names the procedure, without where and how it is done."""

Mention = tuple[str, int, int]
"""Label, start, end."""
Text = tuple[str, list[Mention]]
Gazetteer = tuple[str, list[str]]
"""Label, names."""


def main() -> None:
    args = parse_arguments()
    gazetteers = [read_gazetteer(each) for each in args.gazetteer]
    sentences = read_klue(args.klue_file)[: args.sentences]
    examples = [Example.from_row(row) for row in load_rows(args.labelled_file)[0]] if args.labelled_file else []
    labelled = [
        (each.text, [(label, start, end) for start, end, label in sorted(each.gold_spans)]) for each in examples
    ]
    entries = [name for _, names in gazetteers for name in names]
    lines = [text for text, _ in sentences + labelled]
    lines += [", ".join(entries[start : start + 20]) for start in range(0, len(entries), 20)]
    write_lines(args.output_dir / "text.txt", [" ".join(line.split()) for line in lines])

    own = [label for each in examples for label in each.labels]
    labels = list(dict.fromkeys([*DESCRIPTIONS, *(label for label, _ in gazetteers), *own]))
    rows = [join(sentences[start : start + 4], "\n", labels) for start in range(0, len(sentences), 4)]
    rows += [join(labelled[start : start + 8], "\n", labels) for start in range(0, len(labelled), 8)]
    rows += [join(names, ", ", labels) for names in draw_lists(gazetteers, sentences, args.lists)]
    write_lines(args.output_dir / "related.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="directory for the two files")
    parser.add_argument("--klue_file", type=Path, required=True, help="KLUE-NER file")
    parser.add_argument("--sentences", type=int, default=3000, help="sentences to take from its start (default: 3000)")
    parser.add_argument("--gazetteer", nargs="*", default=[], help="gazetteers, each as label=file.json")
    parser.add_argument("--labelled_file", default=None, help="labelled documents, JSON lines as for training")
    parser.add_argument("--lists", type=int, default=600, help="number of lists of names (default: 600)")
    return parser.parse_args()


def read_gazetteer(argument: str) -> Gazetteer:
    """The label and the names of ``label=file.json``, a JSON object that has the names under ``entries``.

    Raises:
        DataError: the file cannot be read, or has another form.
    """
    label, _, file = argument.partition("=")
    try:
        return label, list(json.loads(Path(file).read_text(encoding="utf-8"))["entries"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{argument}: expected label=file.json with "entries" ({first_line(error)})') from error


def read_klue(path: Path) -> list[Text]:
    """The sentences of a file of ``CHARACTER<TAB>TAG`` lines, with their mentions. The tags are BIO.

    Raises:
        DataError: the file has another form; the message gives file, line and reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from error
    sentences, text, mentions = [], "", []
    for number, line in enumerate([*lines, ""], 1):
        if line.startswith("##"):
            continue
        if line:
            character, _, tag = line.partition("\t")
            if not tag.startswith(("B-", "I-", "O")) or (tag.startswith("I-") and not mentions):
                raise DataError(f"{path}, line {number}: expected CHARACTER<TAB>TAG, tags in BIO")
            if tag.startswith("B-"):
                mentions.append((tag[2:], len(text), len(text) + 1))
            elif tag.startswith("I-"):
                label, start, _ = mentions.pop()
                mentions.append((label, start, len(text) + 1))
            text += character
        elif text:
            sentences.append((text, mentions))
            text, mentions = "", []
    return sentences


def join(parts: list[Text], separator: str, labels: list[str]) -> dict:
    """One row, in the form of ``--train_file``, of several texts and their mentions."""
    text, entities = "", {label: [] for label in labels}
    for part, mentions in parts:
        text += separator if text else ""
        for label, start, end in mentions:
            offsets = {"start": len(text) + start, "end": len(text) + end}
            entities[label].append({"text": part[start:end], **offsets})
        text += part
    return {"text": text, "entities": entities, "entity_descriptions": DESCRIPTIONS}


def draw_lists(gazetteers: list[Gazetteer], sentences: list[Text], count: int) -> list[list[Text]]:
    """Lists of names in random order: half from the gazetteers, half mentions of ``sentences``."""
    heads = {(HEAD.match(name)[0].strip(), label) for label, names in gazetteers for name in names}
    names = [(name, [(label, 0, len(name))]) for name, label in sorted(heads) if len(name) > 1]
    mentions = [
        (text[start:end], [(label, 0, end - start)]) for text, spans in sentences for label, start, end in spans
    ]
    draw, lists = random.Random(42), []
    for _ in range(count if names else 0):
        chosen = [
            text for part in (names, mentions) for text in draw.sample(part, min(NAMES_IN_A_LIST // 2, len(part)))
        ]
        draw.shuffle(chosen)
        lists.append(chosen)
    return lists


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines):,} lines in {path}")


if __name__ == "__main__":
    run(main)
