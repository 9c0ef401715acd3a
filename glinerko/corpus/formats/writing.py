"""What all writers share, and the writers of rows and of doccano."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from glinerko.corpus.formats.documents import FormatOptions
from glinerko.corpus.formats.tags import Run
from glinerko.corpus.rows import Offsets

OVERLAP = "mention that overlaps another one"
CUT = "mention that does not begin and end where a word does"
STRING = "mention without offsets, as it is not in the text"


class Writer:
    """Writes rows in one format. A subclass implements :meth:`add`, and :meth:`start` and :meth:`finish` if needed.

    Args:
        labels: All labels of the rows.
    """

    suffixes: tuple[str, ...] = ()
    """What the names of other files that are written add to the name of the output."""

    def __init__(self, file: TextIO, labels: Sequence[str], options: FormatOptions):
        self.file, self.labels, self.options = file, labels, options
        self.written = 0
        """The number of documents written so far."""
        self.beside: dict[str, str] = {}
        """The content of these other files, by suffix."""

    def start(self) -> None:
        """Write what stands before the first document."""

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        """Write a row ``{"id", "text", "entities": {label: [mention]}}``.

        Returns:
            The number of mentions that the format cannot hold, by reason.

        Raises:
            ValueError: The format cannot hold the document.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Write what stands after the last document."""

    @staticmethod
    def mentions(row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The label and the mention ``{"text", "start", "end"}`` of all mentions that have offsets."""
        return ((label, m) for label, mentions in row["entities"].items() for m in mentions if isinstance(m, Mapping))

    @staticmethod
    def without_offsets(row: Mapping[str, Any]) -> Counter[str]:
        """The number of mentions without offsets, by reason."""
        return Counter(STRING for mentions in row["entities"].values() for m in mentions if isinstance(m, str))

    def flat(self, row: Mapping[str, Any], words: Sequence[Offsets]) -> tuple[list[Run], Counter[str]]:
        """The mentions as runs of words, and the number of mentions that cannot be one, by reason.

        Of mentions that overlap, the one with the best score stays, then the longest, then the first.
        """
        first = {start: number for number, (start, _) in enumerate(words)}
        behind = {end: number for number, (_, end) in enumerate(words, 1)}
        lost, runs, taken = self.without_offsets(row), [], set()
        ranked = sorted(
            self.mentions(row), key=lambda m: (-m[1].get("score", 0), m[1]["start"] - m[1]["end"], m[1]["start"])
        )
        for label, mention in ranked:
            start, end = first.get(mention["start"]), behind.get(mention["end"])
            if start is None or end is None:
                lost[CUT] += 1
            elif not taken.isdisjoint(range(start, end)):
                lost[OVERLAP] += 1
            else:
                runs.append((start, end, label))
                taken.update(range(start, end))
        return sorted(runs), lost


class RowWriter(Writer):
    """Rows of this project."""

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return Counter()


class DoccanoWriter(Writer):
    """JSON lines for doccano's import of sequence labelling. It has no place for scores."""

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        label = [[mention["start"], mention["end"], label] for label, mention in self.mentions(row)]
        self.file.write(json.dumps({"id": row["id"], "text": row["text"], "label": label}, ensure_ascii=False) + "\n")
        return self.without_offsets(row)
