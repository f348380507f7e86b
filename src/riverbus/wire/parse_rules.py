"""Parsers of BUS.RULE: arguments in, a noun out. Raises CommandError with words that name the argument."""

from __future__ import annotations

import re

from riverbus.commands import Command
from riverbus.limits import MESSAGE_BYTES_MAX, PUBLISH_WINDOW_MS_MAX, PUBLISH_WINDOW_MS_MIN
from riverbus.rule_commands import BusRuleGet, RuleDel, RuleSet
from riverbus.wire.parsing import SYNTAX_ERROR, CommandError, checked_pattern, text_of

DURABILITIES = ("quorum", "memory", "none")
_LIMIT_MAX = 2**62  # core/state/rules.py UNLIMITED
_AMOUNT = re.compile(rb"([0-9]{1,18})([A-Za-z]*)")
_TIMES = {b"": 1, b"ms": 1, b"s": 1000, b"m": 60_000, b"h": 3_600_000, b"d": 86_400_000}
_SIZES = {b"": 1, b"b": 1, b"kib": 2**10, b"mib": 2**20, b"gib": 2**30, b"kb": 10**3, b"mb": 10**6, b"gb": 10**9}


def parse_set(args: list[bytes]) -> Command:
    """BUS.RULE SET pattern [COUNT n] [AGE t] [BYTES n] [DURABILITY quorum|memory|none] [WINDOW t] [PAYLOAD n]"""
    given = {}
    for at in range(3, len(args), 2):
        option = args[at].upper()
        if at + 1 == len(args) or option not in _OPTIONS or option in given:
            raise CommandError(SYNTAX_ERROR)
        given[option] = args[at + 1]
    return RuleSet(
        pattern=_pattern(args[2]),
        messages=_amount(given, b"COUNT", {b"": 1}, 0, _LIMIT_MAX),
        age_ms=_amount(given, b"AGE", _TIMES, 0, _LIMIT_MAX),
        size=_amount(given, b"BYTES", _SIZES, 0, _LIMIT_MAX),
        durability=_durability(given.get(b"DURABILITY", b"quorum")),
        window_ms=_amount(given, b"WINDOW", _TIMES, PUBLISH_WINDOW_MS_MIN, PUBLISH_WINDOW_MS_MAX),
        payload=_amount(given, b"PAYLOAD", _SIZES, 0, MESSAGE_BYTES_MAX),
    )


_OPTIONS = (b"COUNT", b"AGE", b"BYTES", b"DURABILITY", b"WINDOW", b"PAYLOAD")


def parse_del(args: list[bytes]) -> Command:
    return RuleDel(_pattern(args[2]))


def parse_get(args: list[bytes]) -> Command:
    return BusRuleGet(_pattern(args[2]))


def _pattern(argument: bytes) -> bytes:
    checked_pattern(argument)
    try:
        argument.decode()
    except UnicodeDecodeError:
        raise CommandError("ERR the pattern of a rule must be UTF-8") from None
    if not argument:
        raise CommandError("ERR the pattern of a rule must not be empty")
    return argument


def _durability(argument: bytes) -> str:
    word = text_of(argument).lower()
    if word not in DURABILITIES:
        known = f"{', '.join(DURABILITIES[:-1])} or {DURABILITIES[-1]}"
        raise CommandError(f"ERR durability is {known}, not '{text_of(argument)}'")
    return word


def _amount(given: dict[bytes, bytes], option: bytes, units: dict[bytes, int], least: int, most: int) -> int | None:
    """A number, with a unit if there are some: `10m`, `64MiB`."""
    argument = given.get(option)
    if argument is None:
        return None
    match = _AMOUNT.fullmatch(argument)
    unit = None if match is None else units.get(match[2].lower())
    if match is None or unit is None:
        known = [name.decode() for name in units if name]
        hint = f", with or without a unit ({' '.join(known)})" if known else ""
        raise CommandError(f"ERR {option.decode()} is a number of 0 or more{hint}, not '{text_of(argument)}'")
    value = int(match[1]) * unit
    if not least <= value <= most:
        raise CommandError(f"ERR {option.decode()} is from {least} to {most}, not {value}")
    return value
