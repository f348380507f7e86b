"""The embedded bus, and the client of a node's, do what lists do: publish, history either way, resume, length."""

from __future__ import annotations

from pathlib import Path

import riverbus
from riverbus.fuzz import assert_equivalent
from tests.cli.processes import node
from tests.fuzz.buses import BusChannels, Channels, ListChannels


def embedded() -> BusChannels:
    return BusChannels(riverbus.embedded())


def test_the_embedded_bus_does_what_lists_do() -> None:
    assert_equivalent(Channels, reference=ListChannels, test=embedded, examples=25, calls_max=30)


def test_the_clients_bus_does_what_the_embedded_one_does(tmp_path: Path) -> None:
    with node(tmp_path) as (url, _):

        def connected() -> BusChannels:
            return BusChannels(riverbus.connect(url, deadline=20))

        assert_equivalent(Channels, reference=embedded, test=connected, examples=15, calls_max=30)
