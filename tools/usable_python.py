"""Print this interpreter's path if `make setup` can use it: new enough, with venv, and the library that tests link."""

import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

if sys.version_info < (3, 11) or find_spec("ensurepip") is None or find_spec("venv") is None:
    sys.exit("needs Python 3.11 or newer, with venv and ensurepip")
library = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or "")
if not library.is_file():
    sys.exit(f"there is no {library}: `cargo test` could not be linked")
print(sys.executable)
