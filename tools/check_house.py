"""The rules of this house that no linter knows, each a function from the tree to what breaks it. Run by `make check`.

- imports go one way (the table LAYERS); wire/ and core/ never wait, read a clock or draw a number;
- a function has at most 70 lines, a file 600; one over 400 says in its header why it is one file;
- a module of the package opens with what it is, in at most 20 lines, and is imported by another one, or is a program's;
- files named in ARCHITECTURE.md, README.md and CONTRIBUTING.md exist;
- tests don't sleep; nothing is left to do.

tests/test_house.py runs the same, and shows that each rule can fail.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
FILE_LINES_REASONED = 400
HEADER_LINES_MAX = 20
REASON = "one file"  # a header over 400 lines has these words in its reason

NOUNS = frozenset(
    {
        "access_commands",
        "commands",
        "durable_commands",
        "fields",
        "keyspace_commands",
        "limits",
        "messages",
        "peer_messages",
        "rule_commands",
    }
)
LAYERS: dict[str, frozenset[str]] = {
    # A: what A may import. The nouns may import each other.
    "nouns": frozenset({"nouns"}),
    "wire": frozenset({"nouns", "wire"}),
    "core": frozenset({"nouns", "core", "_native"}),
    "console": frozenset({"nouns", "console", "core", "wire"}),
    "runtime": frozenset({"nouns", "runtime", "console", "core", "wire", "_native"}),
    "sim": frozenset({"nouns", "sim", "core", "wire", "_native"}),
    "client": frozenset({"nouns", "client", "wire"}),
    "contrib": frozenset({"nouns", "client", "contrib", "riverbus"}),
    "fuzz": frozenset({"fuzz"}),
    "cli": frozenset(
        {"nouns", "cli", "client", "console", "core", "fuzz", "runtime", "sim", "wire", "_native", "riverbus"}
    ),
    "riverbus": frozenset({"nouns", "client"}),
}
# The embedded bus is the client and a node in one process.
EXCEPTIONS = {("riverbus.client.embedded", "runtime"), ("riverbus.client.embedded_cluster", "runtime")}
IMPURE = frozenset(
    [
        "asyncio",
        "concurrent",
        "datetime",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "uuid",
        "uvloop",
    ]
)
PROGRAMS = frozenset({"riverbus", "riverbus.cli.__main__", "riverbus.cli.main"})
DOCUMENTS = ("ARCHITECTURE.md", "README.md", "CONTRIBUTING.md")
SOURCES = ("src", "tests", "benchmarks", "tools", "examples")
_FILE_NAME = re.compile(
    r"(?<![\w./~-])[\w.-][\w./-]*\.(?:py|rs|md|toml|lock|txt)\b"
)  # absolute paths are others' files
_LEFT_TO_DO = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
_LEFT_TO_WRITE = re.compile(r"\bNotImplementedError\b")  # in the package; a fake of the tests may do without a method


@dataclass(frozen=True)
class Module:
    path: Path  # from the root
    name: str  # dotted, for those of the package; else the path
    text: str
    tree: ast.Module

    @property
    def is_package_file(self) -> bool:
        return self.path.parts[0] == "src"

    @property
    def layer(self) -> str:
        """The part of the package that it belongs to."""
        return layer_of(self.name)


def layer_of(name: str) -> str:
    parts = name.split(".")
    if len(parts) == 1:
        return "riverbus"
    return "nouns" if parts[1] in NOUNS else parts[1]


def modules(root: Path) -> list[Module]:
    found = []
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            parts = relative.with_suffix("").parts
            name = ".".join(parts[1:] if folder == "src" else parts).removesuffix(".__init__")
            text = path.read_text()
            found.append(Module(relative, name, text, ast.parse(text, str(relative))))
    return found


def check(root: Path) -> list[str]:
    """All that breaks a rule, one line each."""
    found = modules(root)
    package = [module for module in found if module.is_package_file]
    problems = [problem for module in package for problem in (*imports(module), *purity(module), *header(module))]
    problems += dead_modules(package)
    for module in found:
        problems += [*lengths(module), *left_to_do(module)]
        if module.path.parts[0] == "tests":
            problems += sleeps(module)
    problems += missing_names(root)
    return problems


# --- imports ----------------------------------------------------------------------------------------------------------


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import, those for type checking and those inside functions included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: imports are absolute"
            yield node.lineno, str(node.module)
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imports(module: Module) -> Iterator[str]:
    allowed = LAYERS.get(module.layer)
    if allowed is None:
        yield f"{module.path}: there is no layer {module.layer!r} in the table of tools/check_house.py"
        return
    seen = set()
    for line, name in imported(module):
        if name.split(".")[0] != "riverbus" or name == "riverbus":
            continue
        layer = layer_of(name)
        if layer in LAYERS or layer == "_native":
            is_excepted = (module.name, layer) in EXCEPTIONS
            if layer not in allowed and not is_excepted and (line, layer) not in seen:
                seen.add((line, layer))
                yield f"{module.path}:{line}: {module.layer} may not import {layer}"


def purity(module: Module) -> Iterator[str]:
    """Rules 1 and 2 of style.md."""
    if module.layer not in ("wire", "core"):
        return
    for line, name in imported(module):
        if "." not in name and name in IMPURE:
            yield f"{module.path}:{line}: {module.layer}/ is pure and may not import {name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield f"{module.path}:{node.lineno}: {module.layer}/ never waits"


def dead_modules(package: list[Module]) -> Iterator[str]:
    """Modules that no other one of the package imports; tests don't count."""
    used = {name for module in package for _, name in imported(module) if name != module.name} | {
        name for module in package for name in _lazily_imported(module)
    }
    for module in package:
        is_used = module.name in used or module.path.name == "__init__.py" or module.layer == "contrib"
        if not is_used and module.name not in PROGRAMS:
            yield f"{module.path}: nothing imports it"


def _lazily_imported(module: Module) -> Iterator[str]:
    """Dotted names in strings, as in the table of `riverbus/__init__.py`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("riverbus."):
            yield node.value


# --- sizes and headers ------------------------------------------------------------------------------------------------


def lengths(module: Module) -> Iterator[str]:
    size = module.text.count("\n")
    if size > FILE_LINES_MAX:
        yield f"{module.path}: {size} lines, the end is {FILE_LINES_MAX}"
    elif size > FILE_LINES_REASONED and REASON not in (ast.get_docstring(module.tree) or "").lower():
        yield f"{module.path}: {size} lines, and its header does not say why it is {REASON}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if (count := node.end_lineno - node.lineno + 1) > FUNCTION_LINES_MAX:
                yield f"{module.path}:{node.lineno}: {node.name} has {count} lines, at most {FUNCTION_LINES_MAX}"


def header(module: Module) -> Iterator[str]:
    docstring = ast.get_docstring(module.tree)
    if docstring is None:
        if module.text.strip():
            yield f"{module.path}: has no header that says what it is"
    elif docstring.count("\n") >= HEADER_LINES_MAX:
        yield f"{module.path}: its header has more than {HEADER_LINES_MAX} lines"


def left_to_do(module: Module) -> Iterator[str]:
    if module.path.parts[0] == "tools":
        return  # this file names what it looks for
    for number, line in enumerate(module.text.splitlines(), start=1):
        if match := _LEFT_TO_DO.search(line) or (module.is_package_file and _LEFT_TO_WRITE.search(line)):
            yield f"{module.path}:{number}: {match[0]}"


def sleeps(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep":
            yield f"{module.path}:{node.lineno}: a test waits for the thing itself, not for time"
        if isinstance(node, ast.ImportFrom) and node.module == "time" and any(a.name == "sleep" for a in node.names):
            yield f"{module.path}:{node.lineno}: a test waits for the thing itself, not for time"


# --- documents --------------------------------------------------------------------------------------------------------


def missing_names(root: Path) -> Iterator[str]:
    """A name with folders is the end of a path; a bare one is some file's name. Addresses elsewhere are not asked."""
    folders = (*SOURCES, "native/src", "native/tests", "docs", ".ci")
    files = {path.relative_to(root).as_posix() for folder in folders for path in (root / folder).rglob("*.*")}
    files |= {path.name for path in root.iterdir() if path.is_file()} | {f"native/{name}" for name in ("Cargo.toml",)}
    for document in DOCUMENTS:
        if not (root / document).exists():
            continue
        for number, line in enumerate((root / document).read_text().splitlines(), start=1):
            for name in _FILE_NAME.findall(re.sub(r"\w+://\S+", "", line)):
                wanted = name.removeprefix("./").lstrip("/")
                if not any(file == wanted or file.endswith("/" + wanted) for file in files):
                    yield f"{document}:{number}: there is no {name}"


def main() -> None:
    problems = check(Path(__file__).resolve().parent.parent)
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
