"""The package as others install it: everything is in the wheel, and a card leads to a first result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT
from hub_server import WRITE
from test_publishing import NAME, hub, saved  # noqa: F401 - fixtures

from glinerko.sharing.card import write_card
from glinerko.sharing.publishing import prepare_repository, publish


@pytest.fixture(scope="session")
def tracked():
    """The files of a clean checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def wheel(tracked, tmp_path_factory):
    """The wheel that is built from these files only."""
    checkout, output = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        output,
        checkout,
    ]
    result = subprocess.run([*map(str, build)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = output.glob("glinerko-*.whl")
    return path


@pytest.mark.slow(10)
def test_the_wheel_holds_every_file_of_the_package(wheel, tracked):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("glinerko/")}
    assert packed == {name for name in tracked if name.startswith("glinerko/")}


@pytest.mark.slow(25)
def test_a_stranger_gets_a_first_result_from_the_card_only(wheel, hub, saved, tmp_path):  # noqa: F811
    """What the card on the Hub says, in a process that has the wheel and no checkout."""
    model = shutil.copytree(saved[0].parent, tmp_path / "run") / "best"
    write_card(model, NAME, wheel.as_uri())
    prepare_repository(NAME)
    publish(model, NAME)

    files = hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]]
    card = files["README.md"].decode()
    (command,) = re.findall(r'^pip install "glinerko @ (.+)"$', card, re.MULTILINE)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "packages"),
        command,
    ]
    assert subprocess.run(install).returncode == 0
    assert f"(version {json.loads(files['config.json'])['glinerko']['saved_by']} saved it)" in card

    snippet = re.findall(r"```python\n(from glinerko.+?)```", card, re.DOTALL)[0]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": WRITE,
        "HF_HUB_DISABLE_XET": "1",
    }
    environment["PYTHONPATH"] = str(tmp_path / "packages")
    code = f"{snippet}\nimport glinerko; print(glinerko.__file__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found, file = result.stdout.splitlines()
    assert file.startswith(str(tmp_path / "packages"))
    assert eval(found)["entities"]["Disease"]
