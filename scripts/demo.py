"""Serve a model as a page to try it in a browser, and as an HTTP service; or write a Hugging Face Space that does.

    python scripts/demo.py --model outputs/medical/best
    python scripts/demo.py --model user/model --host 0.0.0.0 --port 8000
    python scripts/demo.py --model user/model --space outputs/space

It needs gradio (`make serve` installs it). Programs use the endpoints /extract and /extract_batch, which the page
describes at "Use via API", and GET /health. One request runs the model at a time, and the others wait. No text is
logged or written to a file. There is no password: with --host 0.0.0.0 everybody in the network can use it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from glinerko.cli import option, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, check_writable, first_line, write_text
from glinerko.sharing.card import requirement

APP = '''\
"""Serves {model}. Written by scripts/demo.py --space."""

from glinerko.cli import run
from glinerko.sharing.demo import run_demo

run(lambda: run_demo("{model}", host="0.0.0.0", ready=print))
'''


@dataclass
class Arguments:
    model: str = option(help="model: Hub id or directory")
    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0 is open to the network")
    port: int = option(7860, "port to listen at; 0 is any that is free", at_least=0, below=2**16)
    device: str | None = option(None, "device: cpu, cuda, mps ... (default: a GPU if there is one)")
    max_characters: int = option(100_000, "characters of a text, and of all texts of a batch together", at_least=1)
    max_texts: int = option(64, "texts of a batch", at_least=1)
    max_queue: int = option(32, "requests that wait; more are refused", at_least=1)
    space: str | None = option(None, "directory for a Space that serves the model; nothing is served here")
    install_from: str | None = option(
        None, "address of glinerko for the Space, such as git+https://... (default: the repository in pyproject.toml)"
    )


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    if find_spec("gradio") is None:
        raise GlinerkoError("the page needs gradio: run `pip install gradio`")
    if args.space is not None:
        write_space(args.model, Path(args.space), args.install_from)
        print(f"A Space that serves {args.model} is in {args.space}")
        return
    from glinerko.sharing.demo import Limits, run_demo

    limits = Limits(args.max_characters, args.max_texts, args.max_queue)
    serving = {"host": args.host, "port": args.port, "device": args.device, "limits": limits}
    run_demo(args.model, **serving, ready=lambda address: print(f"{args.model} at {address}"))


def write_space(model: str, directory: Path, install_from: str | None) -> None:
    """Write the files of a Hugging Face Space that serves a model of the Hub.

    Raises:
        GlinerkoError: The model is not on the Hub, the directory is not empty or cannot be written, or nobody says
            where the Space can install this package from.
    """
    if os.path.exists(model):
        raise GlinerkoError(f"--model {model}: a Space loads its model from the Hub: publish it, and pass its id")
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise GlinerkoError(f"--model {model}: not the id of a repository ({first_line(error)})") from error
    package = requirement(install_from, "demo")
    if package is None:
        raise GlinerkoError("the Space has to install glinerko: pass --install_from git+https://...")
    if any(check_writable(directory).iterdir()):
        raise GlinerkoError(f"--space {directory}: has files already: choose another directory")
    card = SpaceCardData(
        title=model.split("/")[-1],
        emoji="🔎",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version="3.11",
        app_file="app.py",
        models=[model],
        license="apache-2.0",
    )
    write_text(
        directory / "README.md", f"---\n{card}\n---\n\nA page to try [{model}](https://huggingface.co/{model}).\n"
    )
    write_text(directory / "requirements.txt", f"{package}\n")
    write_text(directory / "app.py", APP.format(model=model))


if __name__ == "__main__":
    run(main)
