"""Make what recipes/related_labels.yaml learns from before it sees a document of the corpus.

    python recipes/related_labels_data.py outputs/related --klue_file klue-ner.tsv \\
        --gazetteer_file procedures.json biomarkers.json

OUTPUT_DIR/text.txt is raw text for the encoder: the sentences of a KLUE-NER file, its tags left out, and the names that
the gazetteers list under "entries", twenty a line. OUTPUT_DIR/klue.jsonl is the same sentences with their six labels,
four a document.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

DESCRIPTIONS = {
    "PS": "사람 이름",
    "LC": "장소, 지역",
    "OG": "기관, 단체, 회사",
    "DT": "날짜, 기간",
    "TI": "시각, 시간",
    "QT": "수량, 금액, 단위",
}

Mention = tuple[str, int, int]  # label, start, end


def read_klue(path: Path) -> list[tuple[str, list[Mention]]]:
    """The sentences of a file of ``CHARACTER<TAB>TAG`` lines, tags in BIO, and their mentions in character offsets."""
    sentences, text, mentions = [], "", []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("##"):
            continue
        if line:
            character, tag = line.split("\t")
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


def join(sentences: list[tuple[str, list[Mention]]]) -> dict:
    """A row of several sentences, for ``--train_file``."""
    text, entities = "", {label: [] for label in DESCRIPTIONS}
    for sentence, mentions in sentences:
        text += "\n" if text else ""
        for label, start, end in mentions:
            offsets = {"start": len(text) + start, "end": len(text) + end}
            entities[label].append({"text": sentence[start:end], **offsets})
        text += sentence
    return {"text": text, "entities": entities, "entity_descriptions": DESCRIPTIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="where the two files go")
    parser.add_argument("--klue_file", type=Path, required=True, help="a KLUE-NER file")
    parser.add_argument("--sentences", type=int, default=3000, help="of it, from its start (default: 3000)")
    parser.add_argument("--gazetteer_file", type=Path, nargs="*", default=[], help="JSON files")
    args = parser.parse_args()
    sentences = read_klue(args.klue_file)[: args.sentences]
    names = [name for path in args.gazetteer_file for name in json.loads(path.read_text(encoding="utf-8"))["entries"]]
    lines = [text for text, _ in sentences]
    lines += [", ".join(names[start : start + 20]) for start in range(0, len(names), 20)]
    rows = [join(sentences[start : start + 4]) for start in range(0, len(sentences), 4)]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("text.txt", [" ".join(line.split()) for line in lines]),
        ("klue.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows]),
    ):
        (args.output_dir / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
        print(f"{len(content):,} lines in {args.output_dir / name}")


if __name__ == "__main__":
    main()
