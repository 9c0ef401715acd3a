"""What the scripts share of a command line: arguments from flags or a file, and one line where something is wrong."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from accelerate.utils.memory import should_reduce_batch_size
from rich.console import Console
from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from glinerko.errors import GlinerkoError, Stopped, first_line

SILENCE = 5
"""Seconds that a process other than the first waits before it says what is wrong."""
LOST_PEER = "connection (closed|reset)|gloo|nccl|watchdog|broken pipe"
"""What torch says to a process whose partner is gone."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it stands, and each flag's default."""


def parse_arguments(*dataclasses: type, description: str) -> tuple[Any, ...]:
    """An instance of each dataclass, from flags, or from a YAML or JSON file and the flags after it.

    Raises:
        GlinerkoError: the file cannot be read, or sets what there is not.
    """
    parser = HfArgumentParser(dataclasses, description=description, formatter_class=_HelpFormatter)
    flags = sys.argv[1:]
    if flags and flags[0].endswith((".yaml", ".yml", ".json")):
        try:
            settings = dict(yaml.safe_load(Path(flags[0]).read_text(encoding="utf-8")) or {})  # JSON is YAML too
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise GlinerkoError(f"{flags[0]}: expected `option: value` ({first_line(error)})") from error
        unknown = settings.keys() - {action.dest for action in parser._actions}
        if unknown:
            raise GlinerkoError(f"{flags[0]}: there is no option {', '.join(sorted(unknown))}")
        # As flags, so that the file's values are checked as theirs are, and a flag after the file wins.
        named = ((name, value if isinstance(value, list) else [value]) for name, value in settings.items())
        given = [[f"--{name}", *map(str, values)] for name, values in named if values != [None]]
        flags = [*chain.from_iterable(given), *flags[1:]]
    return parser.parse_args_into_dataclasses(args=flags)


def make_console(speaks: bool = True) -> Console:
    """A console that wraps at 120 columns where there is no terminal, and says nothing unless it ``speaks``."""
    return Console(quiet=not speaks, width=None if sys.stdout.isatty() else 120)


def quieten(is_main_process: bool) -> None:
    """One voice: progress of other libraries on the main process alone, and none that says nothing to a user."""
    logging.basicConfig(level=logging.INFO if is_main_process else logging.ERROR, format="%(message)s")
    set_verbosity_error()  # gliner2 alone loads its own config as a class that transformers does not know
    disable_progress_bar()  # of a second or two, at each model that is loaded
    for name in ("gliner2", "httpx2", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    if not is_main_process:
        datasets.disable_progress_bars()


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main``; an error meant for the user, or an interruption, ends it with one line.

    The exit status is 2 after an error, 75 for a run that stopped and can go on, and 130 after an interruption. Of
    several processes the first one speaks; another one only where it fails alone.
    """
    # Activations that fade to denormal numbers can make a step on a CPU fifty times slower. Before any thread starts.
    torch.set_flush_denormal(True)
    rank = int(os.environ.get("RANK", "0"))
    speaks = rank == 0
    name = "error" if speaks else f"error in process {rank}"
    try:
        main()
    except GlinerkoError as error:
        if not speaks:  # if the first process has the same to say, the launcher ends this one meanwhile
            time.sleep(SILENCE)
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            advice = "lower the batch size or --max_length"
            print(f"{name}: out of memory ({first_line(error)}): {advice}", file=sys.stderr)
            sys.exit(2)
        if not torch.distributed.is_initialized() or not re.search(LOST_PEER, str(error), re.IGNORECASE):
            raise
        print(f"error in process {rank}: another process ended; what it said stands apart", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        if speaks:
            print(f"\n{stopped}", file=sys.stderr)
        sys.exit(75)  # EX_TEMPFAIL: try again
    except KeyboardInterrupt as interruption:
        if speaks:
            print(f"\ninterrupted{f': {interruption}' if str(interruption) else ''}", file=sys.stderr)
        sys.exit(130)
