"""How much of the storage tier is run: the short form by default, the long one with RIVERBUS_STORAGE=long."""

import os
from typing import TypeVar

T = TypeVar("T")
IS_LONG = os.environ.get("RIVERBUS_STORAGE") == "long"


def by_length(short: T, long: T) -> T:
    return long if IS_LONG else short
