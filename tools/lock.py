"""Writes requirements.lock: all that pyproject.toml asks for, directly or not, at the versions pip picks now.

And tests/clients/requirements.lock, of the requirements.txt beside it. Versions only: no index and no hash, so that any
mirror can serve them. Run by `make lock`; with names of lock files, writes only those.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALLER = "pip>=25.1,<27"  # what a new venv brings may be too old for dependency groups, which maturin hands to it
OURS = Path("requirements.lock")
CLIENTS = Path("tests/clients/requirements.lock")
HEADS = {
    OURS: "# Made by `make lock` from pyproject.toml. Installed by `make setup`.\n",
    CLIENTS: "# Made by `make lock` from requirements.txt. Installed by `make clients`.\n",
}


def resolve(wanted: list[str]) -> dict[str, str]:
    """Versions by name. Asks the package index; installs nothing. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    result = subprocess.run([*command, *wanted], check=True, stdout=subprocess.PIPE, text=True)
    found = [item["metadata"] for item in json.loads(result.stdout)["install"]]
    return {metadata["name"]: metadata["version"] for metadata in found}


def wanted(lock: Path) -> list[str]:
    if lock == CLIENTS:
        lines = (ROOT / lock).with_suffix(".txt").read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [INSTALLER, *project["project"]["dependencies"], *project["dependency-groups"]["dev"]]


def main() -> None:
    for lock in [Path(name) for name in sys.argv[1:]] or HEADS:
        versions = resolve(wanted(lock))
        lines = [f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower)]
        (ROOT / lock).write_text(HEADS[lock] + "".join(lines))
        print(f"{lock}: {len(lines)} distributions")


if __name__ == "__main__":
    main()
