"""Writes requirements.lock: all that pyproject.toml asks for, directly or not, at the versions pip picks now.

Versions only: no index and no hash, so that any mirror can serve them. Run by `make lock`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALLER = "pip>=25.1,<27"  # what a new venv brings may be too old for dependency groups, which maturin hands to it
HEAD = "# Made by `make lock` from pyproject.toml. Installed by `make setup`.\n"


def resolve(wanted: list[str]) -> dict[str, str]:
    """Versions by name. Asks the package index; installs nothing. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    result = subprocess.run([*command, *wanted], check=True, stdout=subprocess.PIPE, text=True)
    found = [item["metadata"] for item in json.loads(result.stdout)["install"]]
    return {metadata["name"]: metadata["version"] for metadata in found}


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [INSTALLER, *project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    versions = resolve(wanted)
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower)]
    (ROOT / "requirements.lock").write_text(HEAD + "".join(lines))
    print(f"requirements.lock: {len(lines)} distributions")


if __name__ == "__main__":
    main()
