"""Who sends too fast is read slower; who has too many connections is told so. Nothing is lost of what was sent."""

from __future__ import annotations

import time

from riverbus.core.access.logins import FailedLogins, host_of
from riverbus.limits import ADDRESSES_MAX, FAILED_LOGINS_S
from riverbus.runtime.clients import ADDRESS_FULL
from riverbus.runtime.config import load
from riverbus.runtime.rates import Budget, Rate, Rates, rates_of
from tests.runtime.test_clients import run, serving


def test_a_budget_holds_a_second_and_refills() -> None:
    budget = Budget(Rate(commands=10, bytes=1000), 0.0)
    assert budget.spend(10, 100, 0.0) == 0
    assert budget.spend(5, 0, 0.0) == 0.5
    assert budget.spend(0, 0, 0.5) == 0
    assert budget.spend(0, 3000, 0.5) == 2.0
    assert budget.spend(0, 0, 100.0) == 0
    assert budget.spend(11, 0, 100.0) == 0.1
    assert Budget(Rate(), 0.0).spend(10**9, 10**9, 0.0) == 0


def test_a_users_budget_is_shared_by_its_connections() -> None:
    rates = Rates(Rate(), Rate(commands=10))
    one, other = Budget(rates.connection, 0.0), Budget(rates.connection, 0.0)
    assert rates.spend(one, "a", 10, 0, 0.0) == 0
    assert rates.spend(other, "a", 10, 0, 0.0) == 1.0
    assert rates.spend(other, "b", 10, 0, 0.0) == 0
    for number in range(3000):
        rates.spend(one, f"u{number}", 1, 0, float(number))
    assert len(rates._users) < 2500


def test_the_configuration_sets_them() -> None:
    assert not rates_of(load(environ={})).are_limited
    flags = {"limits": {"commands_per_second": 5, "user_bytes_per_second": "1KiB"}}
    rates = rates_of(load(flags=flags, environ={}))
    assert (rates.connection, rates.user) == (Rate(5, 0), Rate(0, 1024))


def test_a_fast_client_is_slowed_down_and_loses_nothing() -> None:
    async def story() -> None:
        async with serving(rates=Rates(Rate(commands=100), Rate())) as front:
            client, other = await front.connect(), await front.connect()
            start = time.monotonic()
            for _ in range(4):
                assert await client.ask(b"PING") == b"+PONG"
            client.writer.write(b"PING\r\n" * 120)
            answers = [await client.line() for _ in range(120)]
            client.writer.write(b"PING\r\n")
            assert await other.ask(b"PING") == b"+PONG"
            quick = time.monotonic() - start
            assert await client.line() == b"+PONG"
            slow = time.monotonic() - start
            assert answers == [b"+PONG"] * 120
            assert slow >= 0.2 > quick - 0.2

    run(story)


def test_an_address_has_so_many_connections_and_is_told() -> None:
    async def story() -> None:
        async with serving(per_host_max=2) as front:
            one, two = await front.connect(), await front.connect()
            assert await one.ask(b"PING") == await two.ask(b"PING") == b"+PONG"
            third = await front.connect()
            assert await third.rest() == b"-ERR max number of clients of this address reached\r\n"
            assert front.node.sessions.counters.dropped[ADDRESS_FULL] == 1
            await one.close()
            await front.until(lambda: len(front.node.sessions.by_id) == 1)
            assert await (await front.connect()).ask(b"PING") == b"+PONG"

    run(story)


def test_hosts_are_told_apart_and_an_ipv6_network_is_one() -> None:
    assert host_of("10.0.0.1:6380") == "10.0.0.1"
    assert host_of("[2001:db8:0:1::5]:1") == host_of("[2001:db8::1:a:b:c:d]:2") == "2001:db8:0:1::"
    assert host_of("[::1]:1") == "0:0:0:0::"
    assert host_of("[::ffff:10.0.0.1]:1") == "::ffff:10.0.0.1"
    assert host_of("embedded:0") == "embedded"


def test_failed_logins_are_forgotten_and_bounded() -> None:
    logins = FailedLogins(2)
    logins.on_failure("a:1", 0.0)
    assert logins.wait_s("a:2", 0.0) == 0
    logins.on_failure("a:3", 10.0)
    assert logins.wait_s("a:4", 20.0) == int(FAILED_LOGINS_S) - 20 + 1
    assert logins.wait_s("b:1", 20.0) == 0
    assert logins.wait_s("a:1", FAILED_LOGINS_S) == 0
    for number in range(ADDRESSES_MAX + 10):
        logins.on_failure(f"h{number}:1", 100.0)
    assert len(logins._by_host) == ADDRESSES_MAX
    assert FailedLogins(0).wait_s("a:1", 0.0) == 0
