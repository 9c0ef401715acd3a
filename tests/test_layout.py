"""The map in ``glinerko/__init__.py`` is true: it names every room, and each imports only from those above it."""

from __future__ import annotations

import ast
import re

from conftest import ROOT

import glinerko

PACKAGE = ROOT / "glinerko"


def rooms() -> list[str]:
    """The modules in the order of the map, as paths under the package."""
    folder, names = "", []
    for indent, name in re.findall(r"^( {4,})([a-z0-9_/]+)  +\S", glinerko.__doc__, re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            names.append(f"{folder if len(indent) > 4 else ''}{name}")
    return names


def imports(name: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert "glinerko" not in modules, name
    return {module.removeprefix("glinerko.").replace(".", "/") for module in modules if module.startswith("glinerko.")}


def test_the_map_names_every_room():
    files = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")}
    assert sorted(rooms()) == sorted(name for name in files if not name.endswith("__init__"))


def test_each_room_imports_only_from_those_above_it():
    order = rooms()
    below = {(name, used) for name in order for used in imports(name) if order.index(used) >= order.index(name)}
    assert not below
