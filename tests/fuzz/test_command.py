"""`riverbus fuzz` as it is typed: the file that it writes, the test that it prints, its exit codes; and the example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from riverbus.cli.main import app

ROOT = Path(__file__).parents[2]
STORE = ["tests.fuzz.stores:Store", "--reference", "tests.fuzz.stores:ListStore"]
BROKEN = [*STORE, "--test", "tests.fuzz.stores:EqualIdAccepted"]


def run(*command: str, code: int, cwd: Path = ROOT) -> tuple[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def fuzz(*arguments: str, code: int, cwd: Path = ROOT) -> tuple[str, str]:
    return run("-m", "riverbus.cli", "fuzz", *arguments, code=code, cwd=cwd)


def pytest_of(path: Path, code: int) -> str:
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(path.parent), str(path), code=code)[0]


def test_it_writes_a_test_file_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "test_store.py"
    fuzz(*STORE, "--test", "tests.fuzz.stores:FastStore", "--examples", "15", "--output", str(path), code=0)
    assert "def test_fast_store_does_what_list_store_does() -> None:" in path.read_text()
    assert "1 passed" in pytest_of(path, code=0)


def test_with_json_a_run_is_one_object() -> None:
    found = json.loads(fuzz(*BROKEN, "--run", "--json", code=1)[0])
    assert found["difference"].startswith("entries_since(after, count): ")
    assert found["test"].count("both.") == 2
    agreed = [*STORE, "--test", "tests.fuzz.stores:FastStore", "--examples", "15"]
    found = json.loads(fuzz(*agreed, "--run", "--json", code=0)[0])
    assert (found["difference"], found["test"]) == (None, None)
    assert found["calls"] > found["runs"] > 0


def test_with_run_a_difference_is_printed_as_a_test_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "test_store.py"
    stdout, stderr = fuzz(*BROKEN, "--run", "--output", str(path), code=1)
    assert "differs from tests.fuzz.stores:ListStore after 2 calls: entries_since(after, count)" in stderr
    assert stdout.count("both.") == 2
    assert stdout.partition("def test_")[2] in path.read_text()
    found = tmp_path / "test_found.py"
    found.write_text(stdout)
    assert "Disagreement: entries_since(after, count): ListStore returned []" in pytest_of(found, code=1)


def test_with_run_and_no_difference_it_says_how_much_was_tried() -> None:
    stdout, _ = fuzz(*STORE, "--test", "tests.fuzz.stores:FastStore", "--examples", "10", "--run", code=0)
    assert stdout.endswith(" raised: no difference\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere:X", "--reference", "x:y", "--test", "x:y"], "nowhere:X: the module cannot be imported"),
        (["tests.fuzz.stores", *STORE[1:], "--test", "x:y"], "tests.fuzz.stores: write it as module:Name"),
        ([*STORE, "--test", "tests.fuzz.stores:Nothing"], "there is no 'Nothing' in tests.fuzz.stores"),
        ([*STORE, "--test", "tests.fuzz.stores:Entry"], "Entry has no put(), which Store asks for"),
        (STORE, "Missing option '--test'"),
    ],
)
def test_what_cannot_be_tried_is_one_line_and_code_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["fuzz", *arguments, "--run"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_without_hypothesis_the_extra_is_named_and_printed_tests_still_run() -> None:
    hidden = "import sys; sys.modules['hypothesis'] = None; "
    command = "sys.argv[1:] = ['fuzz', 'a:A', '--reference', 'a:A', '--test', 'a:A']; "
    _, stderr = run("-c", hidden + command + "from riverbus.cli.main import main; main()", code=2)
    assert "pip install 'riverbus[fuzz]'" in stderr
    stdout, _ = run(
        "-c",
        hidden + "import riverbus.fuzz as f; from collections import OrderedDict\n"
        "class I:\n    def pop(self) -> int: ...\n"
        "with f.pair(I, reference=list, test=list) as both: both.pop()\n"
        "try: f.assert_equivalent\nexcept ImportError as error: print(error)",
        code=0,
    )
    assert "pip install 'riverbus[fuzz]'" in stdout


def test_the_example_prints_its_bug() -> None:
    stdout, _ = run("examples/fuzz_interface.py", code=0)
    assert "        both.push(0)\n        both.newest(0)  # ListStack returned []; SlicingStack returned [0]" in stdout
