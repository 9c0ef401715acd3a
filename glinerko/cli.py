"""The command line that all scripts share: options, arguments from flags or a file, console, start and end."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import chain
from typing import Any

import datasets
import torch
from accelerate.utils.memory import should_reduce_batch_size
from rich.console import Console
from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from glinerko.common import DataError, GlinerkoError, Stopped, first_line, read_yaml

SECONDS_BEFORE_REPORT = 5
"""How long a process other than the first waits before it prints its error."""
LOST_PEER = "connection (closed|reset)|gloo|nccl|watchdog|broken pipe"
"""Pattern of the errors that torch raises when another process has ended."""


class Affects(Enum):
    """What an option of a training run affects. Run identity and model card follow from it."""

    RESULT = "the trained weights"
    """Compared when a run is resumed, and published in the card."""
    CONTENT = "the data or model that it names"
    """A path or id. The content is compared when a run is resumed, not the name; the name is not published."""
    RUN = "the run only"
    """Neither compared nor published."""


RESULT, CONTENT = Affects.RESULT, Affects.CONTENT


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    affects: Affects = Affects.RUN,
    *,
    choices: Sequence[str] | Callable[[], Iterable[str]] | None = None,
) -> Any:
    """Declare an option of a script: a dataclass field.

    Args:
        default: Its default value; the option is required without one. A list is copied for each instance.
        help: What it is: a phrase that begins with a noun.
        affects: See :class:`Affects`.
        choices: The values it may have, or a function that gives them when arguments are parsed, so that what was
            registered until then counts; any value by default.
    """
    metadata = {"help": help, "affects": affects, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def options_that_affect(affects: Affects, *classes: Any) -> list[str]:
    """The names of the options that ``classes`` (dataclasses or instances) declare as affecting ``affects``."""
    declared = chain.from_iterable(map(dataclasses.fields, classes))
    return [field.name for field in declared if field.metadata.get("affects") is affects]


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Prints the script's docstring unchanged, and the default of each option that has one and does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or "(default:" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class _Parser(HfArgumentParser):
    """Accepts the fields of :func:`option`."""

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
        field = copy.copy(field)
        choices = field.metadata.get("choices")
        known = {"choices": list(choices() if callable(choices) else choices)} if choices else {}
        rest = {name: value for name, value in field.metadata.items() if name not in ("affects", "choices")}
        field.metadata = {**rest, **known}
        HfArgumentParser._parse_dataclass_field(parser, field)


def parse_arguments(*classes: type, description: str) -> tuple[Any, ...]:
    """An instance of each dataclass, from flags, or from a YAML or JSON file and the flags after it.

    Raises:
        DataError: The file cannot be read, or sets an option that does not exist.
    """
    parser = _Parser(classes, description=description, formatter_class=_HelpFormatter)
    flags = sys.argv[1:]
    if flags and flags[0].endswith((".yaml", ".yml", ".json")):
        settings = read_yaml(flags[0], "`option: value`", lambda content: dict(content or {}))
        unknown = settings.keys() - {action.dest for action in parser._actions}
        if unknown:
            raise DataError(f"{flags[0]}: there is no option {', '.join(sorted(unknown))}")
        # Passed on as flags, so that their values are checked in the same way and a flag after the file wins.
        values = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
        given = [[f"--{name}", *map(str, value)] for name, value in values.items() if value != [None]]
        flags = [*chain.from_iterable(given), *flags[1:]]
    return parser.parse_args_into_dataclasses(args=flags)


def make_console(is_main_process: bool = True) -> Console:
    """A console that is silent except on the main process, and 120 columns wide if it is not a terminal."""
    return Console(quiet=not is_main_process, width=None if sys.stdout.isatty() else 120)


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


def run(main: Callable[[], None]) -> None:
    """Run the ``main`` function of a script; an error that the user can fix, or an interruption, is one line.

    The exit status is 2 after an error, 75 if the run stopped and can be resumed, and 130 after an interruption. With
    several processes only the first prints, unless another one fails alone.
    """
    # Activations near zero become denormal numbers, which can make a step on a CPU 50 times slower. Must be set before
    # any thread starts.
    torch.set_flush_denormal(True)
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
        sys.exit(75)  # EX_TEMPFAIL: try again
    except KeyboardInterrupt as interruption:
        if rank == 0:
            print(f"\ninterrupted{f': {interruption}' if str(interruption) else ''}", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(2)
