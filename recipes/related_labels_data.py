"""Make what recipes/related_labels.yaml learns from before it sees a document of the corpus.

    python recipes/related_labels_data.py outputs/related --klue_file klue-ner.tsv \\
        --gazetteer Procedure=procedures.json Biomarker=biomarkers.json --labelled_file data/sample/train.jsonl

OUTPUT_DIR/text.txt is raw text for the encoder: the sentences of a KLUE-NER file and those of other labelled documents,
their labels left out, and the names that the gazetteers list under "entries", twenty a line. OUTPUT_DIR/related.jsonl
has the same sentences with their labels, four of KLUE's or eight of the others a document, and lists of names: half of
each is from a gazetteer, with its label, and half are mentions of KLUE's, with theirs, so that nothing but a name tells
what it is.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

from glinerko.cli import run
from glinerko.data import Example, load_rows, read_gazetteer
from glinerko.errors import DataError, first_line

DESCRIPTIONS = {
    "PS": "사람 이름",
    "LC": "장소, 지역",
    "OG": "기관, 단체, 회사",
    "DT": "날짜, 기간",
    "TI": "시각, 시간",
    "QT": "수량, 금액, 단위",
}

LIST = 12  # names in a list
HEAD = re.compile(r"[^-(\[]*")  # of a price list's entry: what is done, without where and how

Mention = tuple[str, int, int]  # label, start, end


def read_klue(path: Path) -> list[tuple[str, list[Mention]]]:
    """The sentences of a file of ``CHARACTER<TAB>TAG`` lines, tags in BIO, and their mentions in character offsets.

    Raises:
        DataError: with file, line and reason.
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


def join(parts: list[tuple[str, list[Mention]]], separator: str, labels: list[str]) -> dict:
    """A row of several texts and their mentions, for ``--train_file``."""
    text, entities = "", {label: [] for label in labels}
    for part, mentions in parts:
        text += separator if text else ""
        for label, start, end in mentions:
            offsets = {"start": len(text) + start, "end": len(text) + end}
            entities[label].append({"text": part[start:end], **offsets})
        text += part
    return {"text": text, "entities": entities, "entity_descriptions": DESCRIPTIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="where the two files go")
    parser.add_argument("--klue_file", type=Path, required=True, help="a KLUE-NER file")
    parser.add_argument("--sentences", type=int, default=3000, help="of it, from its start (default: 3000)")
    parser.add_argument("--gazetteer", nargs="*", default=[], help="label=file.json")
    parser.add_argument("--labelled_file", default=None, help="JSON lines, as the training script reads them")
    parser.add_argument("--lists", type=int, default=600, help="of names (default: 600)")
    args = parser.parse_args()
    gazetteers = [read_gazetteer(each) for each in args.gazetteer]
    sentences = read_klue(args.klue_file)[: args.sentences]
    heads = {(HEAD.match(name)[0].strip(), label) for label, names in gazetteers for name in names}
    names = [(name, [(label, 0, len(name))]) for name, label in sorted(heads) if len(name) > 1]
    mentions = [
        (text[start:end], [(label, 0, end - start)]) for text, found in sentences for label, start, end in found
    ]
    entries = [name for _, names in gazetteers for name in names]
    examples = [Example.from_row(row) for row in load_rows(args.labelled_file)[0]] if args.labelled_file else []
    labelled = [
        (each.text, [(label, start, end) for start, end, label in sorted(each.gold_spans)]) for each in examples
    ]
    lines = [text for text, _ in sentences + labelled]
    lines += [", ".join(entries[start : start + 20]) for start in range(0, len(entries), 20)]
    own = {label: None for each in examples for label in each.labels}
    labels = list({**DESCRIPTIONS, **{label: None for label, _ in gazetteers}, **own})
    rows = [join(sentences[start : start + 4], "\n", labels) for start in range(0, len(sentences), 4)]
    rows += [join(labelled[start : start + 8], "\n", labels) for start in range(0, len(labelled), 8)]
    draw = random.Random(42)
    for _ in range(args.lists if names else 0):
        chosen = [pair for part in (names, mentions) for pair in draw.sample(part, min(LIST // 2, len(part)))]
        draw.shuffle(chosen)
        rows.append(join(chosen, ", ", labels))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("text.txt", [" ".join(line.split()) for line in lines]),
        ("related.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows]),
    ):
        (args.output_dir / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
        print(f"{len(content):,} lines in {args.output_dir / name}")


if __name__ == "__main__":
    run(main)
