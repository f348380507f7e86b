"""The repository keeps its own rules (tools/check_house.py), and each of them can fail."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import check_house
from tools.check_house import Module

ROOT = Path(__file__).resolve().parent.parent


def module(text: str, name: str = "riverbus.core.example", folder: str = "src") -> Module:
    text = textwrap.dedent(text)
    path = Path(folder, *name.split(".")).with_suffix(".py")
    return Module(path, name, text, ast.parse(text))


def test_the_repository_keeps_its_rules() -> None:
    assert check_house.check(ROOT) == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("riverbus.core.a", "from riverbus.wire.redis import X", "core may not import wire"),
        ("riverbus.wire.a", "from riverbus.core import bus", "wire may not import core"),
        ("riverbus.sim.a", "import riverbus.runtime.node", "sim may not import runtime"),
        ("riverbus.runtime.a", "def f():\n    from riverbus.sim import world", "runtime may not import sim"),
        ("riverbus.client.a", "from riverbus.runtime.node import Node", "client may not import runtime"),
        ("riverbus.limits", "from riverbus.core.state.bus import Bus", "nouns may not import core"),
        ("riverbus.surprise.a", "", "there is no layer 'surprise'"),
    ],
)
def test_an_import_against_the_direction_is_found(name: str, text: str, problem: str) -> None:
    (found,) = check_house.imports(module(text, name))
    assert problem in found


def test_imports_along_the_direction_are_not() -> None:
    for name, text in (
        ("riverbus.runtime.a", "from riverbus.core.state.bus import Bus\nfrom riverbus.wire.redis import X"),
        ("riverbus.client.embedded", "from riverbus.runtime.node import Node"),
        ("riverbus.core.a", "from riverbus._native import Log\nfrom riverbus import limits"),
        ("riverbus.cli.a", "import riverbus\nfrom riverbus.client.bus import Bus"),
    ):
        assert list(check_house.imports(module(text, name))) == []


@pytest.mark.parametrize(
    ("rule", "text", "problem"),
    [
        (check_house.purity, "import time", "core/ is pure and may not import time"),
        (check_house.purity, "from random import Random", "may not import random"),
        (check_house.purity, "async def f(): ...", "never waits"),
        (check_house.lengths, "def f():\n" + "    x = 1\n" * 70, "f has 71 lines"),
        (check_house.lengths, '"""Header."""\n' + "x = 1\n" * 400, "does not say why it is one file"),
        (check_house.lengths, '"""One file."""\n' + "x = 1\n" * 600, "601 lines, the end is 600"),
        (check_house.header, "x = 1", "has no header"),
        (check_house.header, '"""' + "line\n" * 21 + '"""', "more than 20 lines"),
        (check_house.left_to_do, "x = 1  # TO" + "DO", "TO" + "DO"),
        (check_house.left_to_do, "raise NotImplemented" + "Error", "NotImplemented" + "Error"),
        (check_house.sleeps, "import time\ntime.sleep(1)", "waits for the thing itself"),
        (check_house.sleeps, "from time import sleep", "waits for the thing itself"),
    ],
)
def test_what_breaks_a_rule_is_found(rule: Callable[[Module], Iterator[str]], text: str, problem: str) -> None:
    (found,) = rule(module(text))
    assert problem in found


def test_a_long_file_with_a_reason_and_a_function_of_70_lines_are_fine() -> None:
    assert list(check_house.lengths(module('"""One file, as ..."""\n' + "x = 1\n" * 400))) == []
    assert list(check_house.lengths(module("def f():\n" + "    x = 1\n" * 69))) == []


def test_a_module_that_nothing_imports_is_dead_and_tests_do_not_revive_it() -> None:
    used = module("", "riverbus.core.used")
    dead = module("from riverbus.core import used", "riverbus.core.dead")
    lazy = module("", "riverbus.client.lazy")
    top = module("HOMES = {'x': 'riverbus.client.lazy'}", "riverbus")
    assert list(check_house.dead_modules([used, dead, lazy, top])) == ["src/riverbus/core/dead.py: nothing imports it"]


def test_a_document_that_names_a_file_that_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "src" / "riverbus" / "core").mkdir(parents=True)
    (tmp_path / "src" / "riverbus" / "core" / "bus.py").write_text('"""The bus."""\n')
    (tmp_path / "LICENSE.md").write_text("")
    (tmp_path / "ARCHITECTURE.md").write_text(
        "bus.py core/bus.py [license](LICENSE.md) https://a.org/b.md\ngone.py wire/bus.py"
    )
    assert list(check_house.missing_names(tmp_path)) == [
        "ARCHITECTURE.md:2: there is no gone.py",
        "ARCHITECTURE.md:2: there is no wire/bus.py",
    ]
