"""Publish a trained model on the Hub, with its card.

    python scripts/push_to_hub.py outputs/medical/best --hub_model_id user/medical-ner-korean
    python scripts/push_to_hub.py outputs/medical/best --hub_model_id user/medical-ner-korean --create_pr
    python scripts/push_to_hub.py outputs/medical/best --card_only

The model is first loaded in a fresh process, where it must give the scores and the F1 on the validation documents that
it gave when it was saved. Run scripts/eval.py before it: the card states the scores that were measured, and no others.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from glinerko.card import write_card
from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.errors import PublishError
from glinerko.hub import read_config
from glinerko.publishing import prepare_repository, publish, published_files, verify_saved


@dataclass
class Arguments:
    model: str | None = field(default=None, metadata={"help": "directory of the model, or as the first argument"})
    hub_model_id: str | None = field(default=None, metadata={"help": "user/model; the user is the token's by default"})
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "make a new repository private; the owner's default otherwise"}
    )
    hub_token: str | None = field(default=None, metadata={"help": "a token; that of `hf auth login` by default"})
    revision: str | None = field(default=None, metadata={"help": "branch to commit to, made where there is none"})
    create_pr: bool = field(default=False, metadata={"help": "open a pull request instead of a commit"})
    validation_file: str | None = field(
        default=None, metadata={"help": "the validation documents; validation.jsonl beside the model by default"}
    )
    keep_card: bool = field(default=False, metadata={"help": "publish README.md as it is, edited by hand"})
    card_only: bool = field(default=False, metadata={"help": "write the card and stop"})


def main() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and Path(sys.argv[1]).is_dir():
        sys.argv.insert(1, "--model")
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=True)
    console = make_console()
    if args.model is None:
        raise PublishError("pass the directory of a model: scripts/push_to_hub.py outputs/medical/best")
    directory = Path(args.model)
    read_config(directory)
    if args.card_only:
        console.print(f"Card     {write_card(directory, args.hub_model_id)}", highlight=False)
        return
    if args.hub_model_id is None:
        raise PublishError("pass --hub_model_id user/model")
    validation = Path(args.validation_file or directory.resolve().parent / "validation.jsonl")
    if not validation.is_file():
        raise PublishError(f"{validation}: no such file; pass --validation_file, against which the model is tried")

    repo_id = prepare_repository(args.hub_model_id, token=args.hub_token, private=args.hub_private_repo)
    console.print(f"Trying the model in a fresh process, on {validation}", highlight=False)
    verify_saved(directory, validation)
    if not args.keep_card:
        write_card(directory, repo_id)
    console.print(f"Uploading {', '.join(map(str, published_files(directory)))}", highlight=False)
    commit = publish(
        directory, repo_id, token=args.hub_token, revision=args.revision, create_pr=args.create_pr, tell=console.print
    )
    console.print(f"Published {commit.pr_url or commit.commit_url}", highlight=False)


if __name__ == "__main__":
    run(main)
