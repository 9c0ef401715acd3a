"""The command line that all scripts share: options, arguments from flags or a file, console, start and end."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import io
import logging
import math
import operator
import os
import re
import select
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from itertools import chain
from typing import Any

import datasets
import torch
from accelerate.utils.memory import should_reduce_batch_size
from rich.console import Console
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from glinerko.common import ESCAPE, DataError, GlinerkoError, Stopped, first_line, read_yaml

SECONDS_BEFORE_REPORT = 5
"""How long a process other than the first waits before it prints its error."""
LOST_PEER = "connection (closed|reset)|gloo|nccl|watchdog|broken pipe"
"""Pattern of the errors that torch raises when another process has ended."""


class Affects(Enum):
    """What an option of a training run affects. Run identity and model card follow from it."""

    RESULT = "the trained weights"
    """Compared when a run is resumed, and published in the card."""
    CONTENT = "the data or model that it names"
    """A path or id: neither compared nor published. A script adds a digest of the content to the run identity."""
    RUN = "the run only"
    """Neither compared nor published."""


RESULT, CONTENT = Affects.RESULT, Affects.CONTENT

LIMITS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("below", operator.lt),
    "multiple_of": ("a multiple of", lambda value, factor: value % factor == 0),
}
"""What :func:`option` can say of a number: the phrase for the user, and the comparison with the limit."""
LARGEST = 2**31
"""The limit of a number that has no other: libraries overflow, and NumPy's seeds end, not far above."""
SCORES = {"at_least": 0, "below": 2}
"""The limits of a score or an F1 to reach. Above 1 nothing reaches it; 50 was meant as a percentage."""


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    affects: Affects = Affects.RUN,
    *,
    choices: Sequence[str] | Callable[[], Iterable[str]] | None = None,
    words: Sequence[str] = (),
    **limits: float,
) -> Any:
    """Declare an option of a script: a dataclass field.

    Args:
        default: Its default value; the option is required without one. A list is copied for each instance.
        help: What it is: a phrase that begins with a noun.
        affects: See :class:`Affects`.
        choices: The values it may have, or a function that gives them when arguments are parsed, so that what was
            registered until then counts; any value by default.
        words: The words that it may be instead of a number.
        limits: The range of a number, or of each number of a list, by :data:`LIMITS`: ``at_least=0, below=1``.
    """
    if limits and not {"at_most", "below"} & limits.keys():
        limits["below"] = LARGEST
    metadata = {"help": help, "affects": affects, "choices": choices, "words": words, "limits": limits}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def options_that_affect(affects: Affects, *classes: Any) -> list[str]:
    """The names of the options that ``classes`` (dataclasses or instances) declare as affecting ``affects``."""
    declared = chain.from_iterable(map(dataclasses.fields, classes))
    return [field.name for field in declared if field.metadata.get("affects") is affects]


def check_options(arguments: Any) -> None:
    """Check that the options of a dataclass instance have values that their declarations allow.

    Raises:
        GlinerkoError: Naming option, value and what it must be.
    """
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not _is_allowed(each, field.metadata):
                shown = f"{each:g}" if isinstance(each, float) else each
                raise GlinerkoError(f"--{field.name} {shown}: must be {_describe_allowed(field.metadata)}")


def _is_allowed(value: Any, declared: Mapping[str, Any]) -> bool:
    choices, words, limits = (declared.get(name) for name in ("choices", "words", "limits"))
    if choices:
        return value in (choices() if callable(choices) else choices)
    if not limits:
        return True
    if isinstance(value, str):
        return value in words
    return all(LIMITS[name][1](value, limit) for name, limit in limits.items())  # never so for nan


def _describe_allowed(declared: Mapping[str, Any], largest: float = math.inf) -> str:
    if choices := declared["choices"]:
        return " or ".join(choices() if callable(choices) else choices)
    limits = [(name, limit) for name, limit in declared["limits"].items() if limit < largest]
    numbers = " and ".join(f"{LIMITS[name][0]} {limit:,}" for name, limit in limits)
    return f"{', '.join(declared['words'])} or a whole number, {numbers}" if declared["words"] else numbers


def _word_or_number(text: str) -> str | int:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Prints the script's docstring unchanged, and the default of each option that has one and does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or "(default:" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class _Parser(HfArgumentParser):
    """Accepts the fields of :func:`option`; an error is one line."""

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
        field, declared = copy.copy(field), field.metadata
        choices, help = declared.get("choices"), declared.get("help", "")
        field.metadata = {"choices": list(choices() if callable(choices) else choices)} if choices else {}
        if declared.get("limits"):
            help = f"{help}; {_describe_allowed(declared, LARGEST)}"
        if declared.get("words"):
            field.type = _word_or_number
        field.metadata["help"] = help
        HfArgumentParser._parse_dataclass_field(parser, field)

    def error(self, message: str) -> None:
        raise GlinerkoError(re.sub(r"^argument (--\w+)\S*: ", r"\1: ", message) + "; --help lists the options")


def parse_arguments(
    *classes: type, description: str, flags: Sequence[str] | None = None, usage: str | None = None
) -> tuple[Any, ...]:
    """An instance of each dataclass, from flags, or from a YAML or JSON file and the flags after it.

    Args:
        flags: Those of the command line by default.
        usage: The first line of the help, if the command line has more than options.

    Raises:
        GlinerkoError: An option does not exist or its value is not allowed, or the file cannot be read.
    """
    parser = _Parser(classes, usage=usage, description=description, formatter_class=_HelpFormatter)
    flags = sys.argv[1:] if flags is None else flags
    if flags and flags[0].lower().endswith((".yaml", ".yml", ".json")):
        flags = [*_flags_in_file(flags[0], {action.dest: action for action in reversed(parser._actions)}), *flags[1:]]
    *arguments, unknown = parser.parse_args_into_dataclasses(
        flags, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        close = get_close_matches(unknown[0].partition("=")[0], parser._option_string_actions, n=1)
        parser.error(f"there is no option {unknown[0]}" + (f"; {close[0]} is close" if close else ""))
    for each in arguments:
        check_options(each)
    return tuple(arguments)


def _flags_in_file(file: str, actions: Mapping[str, argparse.Action]) -> list[str]:
    """The settings of a file as flags, so that their values are checked in the same way and a flag after it wins."""
    flags = []
    for name, setting in read_yaml(file, "`option: value`", lambda content: dict(content or {})).items():
        if name not in actions:
            raise DataError(f"{file}: there is no option {name}")
        values = setting if isinstance(setting, list) else [setting]
        for value in values:
            if isinstance(value, dict | list):
                raise DataError(f"{file}: {name} must be a value or a list of values")
            if isinstance(value, bool) and actions[name].type is not string_to_bool:
                raise DataError(f"{file}: {name} is a truth value in YAML; put what is meant in quotes")
        if setting is not None:
            flags += [f"--{name}", *map(str, values)]
    return flags


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # rich would end with exit status 1, which here means that a score is too low; see run()


def make_console(is_main_process: bool = True) -> Console:
    """A console that prints a text as it is: it may hold labels, names and paths. Markup is left to ``style``.

    It is silent except on the main process, and 120 columns wide if it is not a terminal.
    """
    width = None if sys.stdout.isatty() else 120
    return _Console(quiet=not is_main_process, width=width, markup=False, emoji=False, highlight=False)


def set_log_levels(is_main_process: bool) -> None:
    """Show library progress on the main process only, and silence log messages that do not help the user."""
    logging.basicConfig(level=logging.INFO if is_main_process else logging.ERROR, format="%(message)s")
    set_verbosity_error()  # gliner2 loads its config as a class that transformers does not know
    disable_progress_bar()  # one of a second or two for each model that is loaded
    for name in ("gliner2", "httpx2", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    if not is_main_process:
        datasets.disable_progress_bars()


def choose_device(requested: str | None) -> torch.device:
    """The requested device, or otherwise a GPU if there is one.

    Raises:
        GlinerkoError: This machine has no such device.
    """
    if requested is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.ones(1, device=requested).item()
    except Exception as error:  # each backend raises its own
        raise GlinerkoError(f"--device {requested}: cannot be used here ({first_line(error)})") from error
    return torch.device(requested)


def run(main: Callable[[], None]) -> None:
    """Run the ``main`` function of a script; an error that the user can fix, or an interruption, is one line.

    The exit status is 2 after an error, 75 if the run stopped and can be resumed, 130 after an interruption, and 141 if
    nobody reads the output any more. With several processes only the first prints, unless another one fails alone.
    """
    # Activations near zero become denormal numbers, which can make a step on a CPU 50 times slower. Must be set before
    # any thread starts.
    torch.set_flush_denormal(True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(getattr(sys, name), io.TextIOWrapper):  # what a console lacks is shown as \uXXXX
            getattr(sys, name).reconfigure(errors=ESCAPE, line_buffering=True)
    rank = int(os.environ.get("RANK", "0"))
    name = "error" if rank == 0 else f"error in process {rank}"
    try:
        main()
    except GlinerkoError as error:
        if rank != 0:  # if the first process has the same error, the launcher ends this one in the meantime
            time.sleep(SECONDS_BEFORE_REPORT)
        _fail(f"{name}: {error}")
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            _fail(f"{name}: out of memory ({first_line(error)}): lower the batch size or --max_length")
        if not torch.distributed.is_initialized() or not re.search(LOST_PEER, str(error), re.IGNORECASE):
            raise
        _fail(f"error in process {rank}: another process ended; see its own error message")
    except Stopped as stopped:
        if rank == 0:
            print(f"\n{stopped}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)  # 75: try again
    except KeyboardInterrupt as interruption:
        if rank == 0:
            print(f"\ninterrupted{f': {interruption}' if str(interruption) else ''}", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.strerror is None:
            raise
        unread = isinstance(error, BrokenPipeError) and _is_unread()
        if not unread:
            print(f"{name}: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", file=sys.stderr)
        for number in (1, 2):  # at its end, Python would try again to write what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        sys.exit(141 if unread else 2)  # 141: as a shell reports an end by SIGPIPE


def _is_unread() -> bool:
    """Whether standard output or standard error is a pipe that nobody reads any more."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _fail(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(2)
