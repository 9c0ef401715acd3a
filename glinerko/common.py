"""What every room uses: errors meant for the user, and reading and writing files."""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, TextIO, TypeVar

import yaml
from fsspec.compression import compr
from fsspec.utils import infer_compression
from huggingface_hub.utils.sha import sha_fileobj

__version__ = "0.1.0"
"""The version of this package; cached data depend on it."""

T = TypeVar("T")

ESCAPE = "glinerko.escape"
"""The error handler that writes what an encoding lacks as JSON does: ``\\ud83d\\ude00``. So JSON is still JSON."""
codecs.register_error(ESCAPE, lambda error: (json.dumps(error.object[error.start : error.end])[1:-1], error.end))


class GlinerkoError(Exception):
    """An error that the user can fix. The message says what, where and what to do; scripts print it on one line."""


class DataError(GlinerkoError):
    """A row, a file or a data set that cannot be read as requested."""


class SwapError(GlinerkoError):
    """An encoder that cannot replace the encoder of the base model."""


class LoadError(GlinerkoError):
    """A model, encoder or tokenizer that cannot be loaded."""


class TrainingError(GlinerkoError):
    """A training run that cannot go on, or a step whose result is not reliable."""


class PublishError(GlinerkoError):
    """A model that must not be published, or a Hub that refuses it."""


class Stopped(Exception):
    """A run that stopped on request and can be resumed. The message says how."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, to be quoted in one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_lines(file: str | Path | None) -> Iterator[str]:
    """The lines of a UTF-8 file, or of standard input for ``None``, without their ends and without a byte order mark.

    The encoding of the console does not matter. A file named .gz, .xz, .zst or .bz2 is decompressed.

    Raises:
        DataError: The file cannot be read or is not UTF-8.
    """
    name = "standard input" if file is None else file
    try:
        with open_binary(file) as content, TextIOWrapper(content, encoding="utf-8-sig") as text:
            for line in text:
                yield line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8; save it as UTF-8") from error
    except DataError:
        raise
    except Exception as error:  # each kind of compressed file has its own errors
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or first_line(error)})") from error


@contextmanager
def open_binary(file: str | Path | None) -> Iterator[BinaryIO]:
    """The bytes of a file, or of standard input for ``None``; those of a compressed file are decompressed.

    Raises:
        DataError: It is a .zip, which can hold several files.
    """
    kind = infer_compression(str(file or ""))
    if kind == "zip":
        raise DataError(f"{file}: unpack it first")
    with open(0 if file is None else file, "rb", closefd=file is not None) as raw:
        if kind is None:
            yield raw
            return
        with compr[kind](raw, mode="rb") as content:
            yield content


def without_compression(file: str | Path) -> Path:
    """The name of a file without the suffix of its compression."""
    return Path(file).with_suffix("") if infer_compression(str(file)) else Path(file)


def read_yaml(file: str | Path, expected: str, parse: Callable[[Any], T]) -> T:
    """The result of ``parse`` on the content of a YAML or JSON file.

    Args:
        expected: The form of the file, for the error message.
        parse: Turns the content into the result; any ``ValueError``, ``TypeError``, ``KeyError`` or ``AttributeError``
            it raises means that the content has another form.

    Raises:
        DataError: The file cannot be read or has another form.
    """
    try:
        return parse(yaml.load(Path(file).read_text(encoding="utf-8-sig"), _StrictLoader))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise DataError(f"{file}: expected {expected} ({line}{error.problem or first_line(error)})") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file}: expected {expected} ({first_line(error)})") from error


class _StrictLoader(yaml.SafeLoader):
    """Refuses what YAML would drop or change: a key that is given twice, and ``no`` or ``null`` as a name in a list."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")]
        _refuse_constants(keys)
        for number, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:number]):
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
        return node

    def compose_sequence_node(self, anchor: str | None) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        _refuse_constants(node.value)
        return node


def _refuse_constants(nodes: Iterable[yaml.Node]) -> None:
    for node in nodes:
        if node.tag.endswith((":bool", ":null")):
            kind = "a truth value" if node.tag.endswith(":bool") else "nothing"
            raise ValueError(f"line {node.start_mark.line + 1}: {node.value!r} is {kind} in YAML; put it in quotes")


def parse_json(text: str, decode: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text that a user wrote.

    Args:
        decode: What reads the text (default: all of it is one value): a method of :data:`JSON_DECODER`.

    Raises:
        ValueError: It is malformed or nested too deeply, or a key is given twice. One line.
    """
    try:
        return (decode or JSON_DECODER.decode)(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        hint = "; write one object a line" if text.strip() in ("[", "{") else ""
        raise ValueError(f"malformed JSON: {error.msg} at {line}column {error.colno}{hint}") from error
    except RecursionError as error:
        raise ValueError("malformed JSON: nested too deeply") from error


def parse_json_lines(file: str | Path) -> Iterator[tuple[str, Any]]:
    """The place, ``FILE, line 3``, and the value of each line of a file of JSON lines. Blank lines do not count.

    Raises:
        DataError: The file cannot be read, or a line is malformed.
    """
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            place = f"{file}, line {number}"
            try:
                value = parse_json(line)
            except ValueError as error:
                raise DataError(f"{place}: {error}") from error
            yield place, value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which no key is given twice.

    Raises:
        ValueError: Naming the key.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"the key {twice!r} is given twice in one object")
    return content


JSON_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)
JSON_BEGIN = re.compile(r'\s*(\{\s*("|$)|\[\s*(\{|$))')
"""The first line of a file of JSON: of one object a line, or of other JSON."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; none if there is no file."""
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in content.split("\n") if line]  # not splitlines: U+2028 may stand in a string


def check_output(target: str | Path, *sources: str | int | None) -> None:
    """Check that a file to write is not one that is read.

    Args:
        sources: Files, or numbers of open files.

    Raises:
        DataError: It is one of ``sources``, perhaps through a link.
    """
    for source in sources:
        exist = source is not None and os.path.exists(source) and os.path.isfile(target)
        if exist and os.path.samefile(source, target):
            raise DataError(f"{target}: would be written over, but is also an input: choose another output file")


def check_writable(directory: str | Path) -> Path:
    """Make a directory if there is none, and check that files can be written there, before anything is computed.

    Raises:
        DataError: They cannot.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            return Path(directory)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror})") from error


@contextmanager
def replace_file(path: str | Path) -> Iterator[TextIO]:
    """A UTF-8 file to write, which takes the place of ``path`` at the end, unless the block raises an error.

    Missing directories are created. A pipe or device is written directly.

    Raises:
        DataError: It cannot be written.
    """
    at_once = os.path.exists(path) and not os.path.isfile(path)
    target = Path(path) if at_once else Path(os.path.realpath(path))
    beside = target if at_once else target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = beside.open("w", encoding="utf-8", errors=ESCAPE)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with file:
            yield file
        if not at_once:
            if target.exists():
                shutil.copymode(target, beside)
            beside.replace(target)
    except BaseException as error:
        if not at_once:
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_written(path, error) from error
        raise


def unfinished_files(path: str | Path) -> tuple[Path, Path]:
    """The files of an output that :func:`resume_file` has not finished: its lines, and what they depend on."""
    target = Path(os.path.realpath(path))
    return target.with_name(f"{target.name}.partial"), target.with_name(f"{target.name}.partial.json")


@contextmanager
def resume_file(path: str | Path, identity: Mapping[str, Any]) -> Iterator[tuple[TextIO, Iterator[str]]]:
    """A UTF-8 file of lines that takes the place of ``path`` at the end. If the block raises an error, it stays beside.

    A later call goes on with what an earlier one left, in ``PATH.partial``. A pipe or device is written directly.

    Args:
        identity: What the lines depend on; kept in ``PATH.partial.json`` and compared.

    Yields:
        The file, and the lines that are already in it.

    Raises:
        DataError: It cannot be written, or another process writes it, or what was left is of another identity.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with replace_file(path) as file:
            yield file, iter(())
        return
    target, (partial, beside) = Path(os.path.realpath(path)), unfinished_files(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Append: nothing is lost before the lock is there. Not closed before the end: the lock is on the open file.
        file = partial.open("a", encoding="utf-8", errors=ESCAPE)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"{partial}: another process writes it") from error
            if not partial.exists() or not os.path.samestat(partial.stat(), os.fstat(file.fileno())):
                raise DataError(f"{partial}: another process has just finished it")
            size = partial.stat().st_size
            if size and not beside.is_file():
                raise DataError(f"{partial}: not made by this command; move it away")
            if size and read_json(beside) != json.loads(json.dumps(identity)):
                raise DataError(f"{partial}: made with another model or other options: delete it to start again")
            os.truncate(partial, _end_of_last_line(partial))
            write_json(beside, identity)
            try:
                yield file, read_lines(partial)
            except BaseException:
                with suppress(OSError):
                    file.flush()
                if not partial.stat().st_size:
                    partial.unlink()
                    beside.unlink()
                raise
            file.flush()
            if target.exists():
                shutil.copymode(target, partial)
            partial.replace(target)
            beside.unlink()
    except OSError as error:
        raise _not_written(path, error) from error


def _end_of_last_line(path: Path) -> int:
    """The size of a file without what stands after its last line end."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position:
            begin = max(0, position - 2**16)
            file.seek(begin)
            found = file.read(position - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            position = begin
    return 0


def _not_written(path: str | Path, error: OSError) -> Exception:
    """The error to raise if writing ``path`` ended in ``error``.

    One that names no file, like a full disk, is of ``path``, and so is one that names a file beside it.
    """
    elsewhere = error.filename and not str(error.filename).startswith(str(Path(os.path.realpath(path)).parent))
    if isinstance(error, BrokenPipeError) or not error.errno or elsewhere:
        return error
    return DataError(f"{path}: cannot be written ({error.strerror})")


def write_text(path: str | Path, content: str) -> None:
    """Write a UTF-8 file whole or not at all: see :func:`replace_file`."""
    with replace_file(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write UTF-8 JSON with indentation and readable Korean; see :func:`replace_file`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one UTF-8 JSON object per line; see :func:`replace_file`."""
    with replace_file(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return sha_fileobj(file).hex()


@cache
def code_digest() -> str:
    """A hash of this package's code: what a cache holds was made by the same code."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def check_unicode(what: str, value: str) -> None:
    """Stop if a string is no Unicode text; ``what`` names it.

    Raises:
        ValueError: It holds half of a surrogate pair.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half of a surrogate pair, which is no character") from None


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words."""
    names = {type(None): "nothing", str: "a string", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
