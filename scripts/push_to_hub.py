"""Publish a trained model on the Hub, with its card.

    python scripts/push_to_hub.py outputs/medical/best --hub_model_id user/medical-ner-korean
    python scripts/push_to_hub.py outputs/medical/best --hub_model_id user/medical-ner-korean --create_pr
    python scripts/push_to_hub.py outputs/medical/best --card_only

The model is first loaded in a fresh process. There it must give the same scores, and the same F1 on the validation
documents, as when it was saved. Run scripts/eval.py first: the card states only scores that were measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from glinerko.cli import make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import PublishError
from glinerko.hub import require_gliner2
from glinerko.sharing.card import requirement, write_card
from glinerko.sharing.publishing import prepare_repository, publish, published_files, verify_saved
from glinerko.training.checkpoints import VALIDATION


@dataclass
class Arguments:
    model: str | None = option(None, "directory of the model; may be the first argument, without the flag")
    hub_model_id: str | None = option(None, "Hub repository: user/model, or model under the user of the token")
    hub_private_repo: bool | None = option(None, "privacy of a new repository (default: the owner's default)")
    hub_token: str | None = option(None, "Hub access token (default: the one saved by `hf auth login`)")
    revision: str | None = option(None, "branch to commit to, made if there is none (default: main)")
    create_pr: bool = option(False, "pull request instead of a commit")
    validation_file: str | None = option(None, "validation documents (default: validation.jsonl beside the model)")
    install_from: str | None = option(
        None, "address of glinerko for the card, such as git+https://... (default: the repository in pyproject.toml)"
    )
    keep_card: bool = option(False, "README.md as it is, for example edited by hand")
    card_only: bool = option(False, "only the card, without an upload")


def main() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and Path(sys.argv[1]).is_dir():
        sys.argv.insert(1, "--model")
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=True)
    console = make_console()
    if args.model is None:
        raise PublishError("pass the directory of a model: scripts/push_to_hub.py outputs/medical/best")
    directory = Path(args.model)
    if not args.keep_card and requirement(args.install_from) is None:
        console.print("The card cannot say how to install glinerko: pass --install_from", style="yellow")
    require_gliner2(directory, directory)
    if args.card_only:
        console.print(f"Card     {write_card(directory, args.hub_model_id, args.install_from)}")
        return
    if args.hub_model_id is None:
        raise PublishError("pass --hub_model_id user/model")
    validation = Path(args.validation_file or directory.resolve().parent / VALIDATION)
    if not validation.is_file():
        raise PublishError(f"{validation}: no such file; pass --validation_file, on which the model is checked")

    repo_id = prepare_repository(args.hub_model_id, token=args.hub_token, private=args.hub_private_repo)
    console.print(f"Checking the model in a fresh process, on {validation}")
    verify_saved(directory, validation)
    if not args.keep_card:
        write_card(directory, repo_id, args.install_from)
    console.print(f"Uploading {', '.join(map(str, published_files(directory)))}")
    commit = publish(
        directory, repo_id, token=args.hub_token, revision=args.revision, create_pr=args.create_pr, tell=console.print
    )
    console.print(f"Published {commit.pr_url or commit.commit_url}")


if __name__ == "__main__":
    run(main)
