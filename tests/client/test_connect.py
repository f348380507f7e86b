"""The client over sockets: the contract, and the weather of a cluster, on a fake server that is told to fail.

It is one file, for all of it tells stories on the same fake cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import riverbus
from riverbus import Gap, HistoryLost, Message, MessageId, NotAccepted, OutcomeUnknown, Refused, Unreachable
from tests.client import contract
from tests.client.contract import take
from tests.client.fake_server import Node, fake_cluster, tell, until, url_of


@contract.each_check
def test_contract(check: contract.Check) -> None:
    @asynccontextmanager
    async def open_bus() -> AsyncIterator[riverbus.Bus]:
        async with fake_cluster() as nodes, riverbus.connect(url_of(nodes)) as bus:
            yield bus

    asyncio.run(contract.run(open_bus, check))


# --- publish ----------------------------------------------------------------------------------------------------------


def test_concurrent_publishes_leave_in_one_write() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            await asyncio.gather(*(bus.publish("c", b"x") for _ in range(100)))
        assert [len(each) for each in nodes[0].commands if each[0] == b"BUS.PUBLISHRUN"] == [104]

    tell(story)


def test_a_publish_that_was_not_accepted_is_tried_again() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["CLUSTERDOWN no leader", "CLUSTERDOWN no leader", "BUSY slow down"]
        async with riverbus.connect(url_of(nodes)) as bus:
            assert await bus.publish("c", "x") == MessageId(1000, 1)

    tell(story)


def test_a_node_without_a_majority_is_left_for_another() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["CLUSTERDOWN no leader"] * 1000
        async with riverbus.connect(url_of(nodes)) as bus:
            for _ in range(10):
                await bus.publish("c", "x")
        assert len(nodes[0].weather[b"BUS.PUBLISHRUN"]) >= 999

    tell(story, nodes=2)


def test_a_publish_that_no_node_takes_raises_not_accepted_at_the_deadline() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["CLUSTERDOWN no leader"] * 1000
        async with riverbus.connect(url_of(nodes), deadline=0.2) as bus:
            with pytest.raises(NotAccepted, match="no leader"):
                await bus.publish("c", "x")

    tell(story)


def test_an_unknown_outcome_of_another_write_is_raised_and_not_retried() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISH"] = ["UNKNOWN the leader changed"]
        async with riverbus.connect(url_of(nodes)) as bus:
            with pytest.raises(OutcomeUnknown):
                await bus.execute("BUS.PUBLISH", "c", "x")
            assert await bus.length("c") == 0

    tell(story)


def test_a_connection_lost_in_flight_is_an_unknown_outcome() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISH"] = ["apply+drop"]
        async with riverbus.connect(url_of(nodes)) as bus:
            with pytest.raises(OutcomeUnknown):
                await bus.execute("BUS.PUBLISH", "c", "x")
            assert await bus.length("c") == 1  # it was carried out: a retry would have made two

    tell(story)


def test_a_node_that_never_answers_is_an_unknown_outcome_within_the_reply_timeout() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISH"] = ["hang"]
        async with riverbus.connect(url_of(nodes, "?reply_timeout=0.2")) as bus:
            with pytest.raises(OutcomeUnknown):
                await bus.execute("BUS.PUBLISH", "c", "x")

    tell(story)


WEATHER = ["apply+drop", "drop", "UNKNOWN it may be", "apply+UNKNOWN it is", "CLUSTERDOWN no leader", "apply+drop"]


def test_a_publish_is_sent_again_whatever_happened_and_has_one_effect() -> None:
    async def story(nodes: list[Node]) -> None:
        for node in nodes:
            node.weather[b"BUS.PUBLISHRUN"] = list(WEATHER)
        async with riverbus.connect(url_of(nodes)) as bus:
            ids = await asyncio.gather(*(bus.publish("c", f"{at}") for at in range(20)), bus.publish("d", "x"))
            assert ids == [*(MessageId(1000, at + 1) for at in range(20)), MessageId(1000, 1)]
            assert await bus.length("c") == 20

    tell(story, nodes=2)


def test_a_publish_that_is_never_answered_is_of_unknown_outcome_at_the_deadline() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["apply+drop", *["CLUSTERDOWN no leader"] * 1000]
        async with riverbus.connect(url_of(nodes), deadline=0.2) as bus:
            with pytest.raises(
                OutcomeUnknown, match=r"an earlier try may have been carried out, .*CLUSTERDOWN no leader"
            ):
                await bus.publish("c", "x")
            nodes[0].weather[b"BUS.PUBLISHRUN"] = ["hang"]
            publish = asyncio.ensure_future(bus.publish("c", "y"))
            await until(lambda: b"y" in nodes[0].commands[-1])
        with pytest.raises(OutcomeUnknown, match="the bus was closed"):
            await publish

    tell(story)


def test_a_key_of_the_program_is_sent_with_the_message() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISH"] = ["drop"]
        async with riverbus.connect(url_of(nodes)) as bus:
            await bus.publish("c", "x", key="order-1")
        assert nodes[0].commands[-1] == [b"BUS.PUBLISH", b"c", b"x", b"KEY", b"order-1"]

    tell(story)


def test_a_refused_run_is_sent_message_by_message() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["ERR one is too large", "ERR this one"]
        async with riverbus.connect(url_of(nodes)) as bus:
            first, second = await asyncio.gather(bus.publish("c", "1"), bus.publish("c", "2"), return_exceptions=True)
            assert str(first) == "ERR this one"
            assert second == MessageId(1000, 1)
        numbers = [each[3] for each in nodes[0].commands if each[0] == b"BUS.PUBLISHRUN"]
        assert numbers == [b"0", b"0", b"1"]

    tell(story)


def test_a_channel_without_keys_is_published_to_plainly_and_once() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["NOKEYS durability none"]
        async with riverbus.connect(url_of(nodes)) as bus:
            await bus.publish("c", "1")
            await bus.publish("c", "2")  # which the fake gave an id, as if the rule had changed
            nodes[0].weather[b"BUS.PUBLISHRUN"] = ["NOKEYS durability none"]
            nodes[0].weather[b"BUS.PUBLISH"] = ["drop"]
            with pytest.raises(OutcomeUnknown):
                await bus.publish("none", "x")
        names = [each[0] for each in nodes[0].commands if each[0].startswith(b"BUS.")]
        assert names == [b"BUS.PUBLISHRUN", b"BUS.PUBLISH", b"BUS.PUBLISHRUN", b"BUS.PUBLISHRUN", b"BUS.PUBLISH"]

    tell(story)


def test_a_publish_that_was_never_written_is_sent_elsewhere() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            await bus.publish("c", "x")
            publish = asyncio.ensure_future(bus.publish("c", "y"))
            await asyncio.sleep(0)  # gathered, and not yet written
            connection = bus._commander._connection
            assert connection is not None
            connection.close("cut by the test")
            assert await publish == MessageId(1000, 2)

    tell(story)


def test_a_read_is_tried_again_whatever_happened() -> None:
    async def story(nodes: list[Node]) -> None:
        for node in nodes:
            node.weather[b"XLEN"] = ["drop", "CLUSTERDOWN no leader"]
        async with riverbus.connect(url_of(nodes)) as bus:
            assert await bus.length("c") == 0

    tell(story, nodes=2)


def test_other_errors_are_raised_at_once() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.PUBLISHRUN"] = ["MISCONF no room", "OOM full", "NOPERM no"]
        async with riverbus.connect(url_of(nodes)) as bus:
            with pytest.raises(riverbus.DiskFull):
                await bus.publish("c", "x")
            with pytest.raises(riverbus.OutOfMemory):
                await bus.publish("c", "x")
            with pytest.raises(Refused, match="NOPERM no"):
                await bus.publish("c", "x")

    tell(story)


def test_a_cancelled_publish_does_not_shift_the_replies_of_others() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            first, second = asyncio.ensure_future(bus.publish("c", "1")), asyncio.ensure_future(bus.publish("c", "2"))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == MessageId(1000, 2)

    tell(story)


def test_publishes_beyond_the_room_in_flight_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riverbus.client.commander.CLIENT_INFLIGHT_BYTES_MAX", 1000)

    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            ids = await asyncio.gather(*(bus.publish("c", b"x" * (i * 20)) for i in range(100)))
            assert ids == [MessageId(1000, i + 1) for i in range(100)]
        assert max(nodes[0].reads) < 20

    tell(story)


# --- connecting -------------------------------------------------------------------------------------------------------


def test_credentials_are_sent_and_a_wrong_password_is_refused_at_once() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].cluster.password = b"s3c:ret"
        port = nodes[0].port
        async with riverbus.connect(f"redis://me:s3c%3Aret@127.0.0.1:{port}") as bus:
            await bus.publish("c", "x")
        with pytest.raises(Refused, match="WRONGPASS"):
            async with riverbus.connect(f"redis://:nope@127.0.0.1:{port}"):
                pass
        with pytest.raises(Refused, match="NOAUTH"):
            async with riverbus.connect(f"redis://127.0.0.1:{port}") as bus:
                await bus.publish("c", "x")

    tell(story)


def test_no_node_at_all_raises_unreachable_with_the_reason() -> None:
    async def story(nodes: list[Node]) -> None:
        await nodes[0].stop()
        with pytest.raises(Unreachable, match="no node was reached"):
            async with riverbus.connect(url_of(nodes), deadline=0.2):
                pass

    tell(story)


def test_a_node_that_breaks_the_protocol_is_left() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            nodes[0].cluster.sessions[0].send(b"!!!\r\n")
            assert await bus.length("c") == 0
            assert nodes[0].connections == 2

    tell(story)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_a_subscription_resumes_on_another_node_without_gap_or_duplicate() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with (
            riverbus.connect(url_of(nodes)) as bus,
            bus.subscribe("c", since="0-0", on_gap="raise") as subscription,
        ):
            for i in range(100):
                cluster.publish(b"c", b"%d" % i)
                if i % 10 == 5:
                    nodes[i // 10 % 2].cut()
                if i % 25 == 0:
                    await asyncio.sleep(0.01)
            assert [message.payload for message in await take(subscription, 100)] == [b"%d" % i for i in range(100)]

    tell(story, nodes=2)


def test_a_live_subscription_cut_before_its_first_message_misses_nothing() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        cluster.publish(b"c", b"old")
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c") as subscription:
            nodes[0].cut()
            cluster.publish(b"c", b"while away")
            assert await take(subscription, 1) == [Message("c", MessageId(1000, 2), b"while away")]
            assert subscription.reconnects == 1

    tell(story)


def test_trimmed_history_is_a_gap_or_an_error() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        for i in range(5):
            cluster.publish(b"c", b"%d" % i)
        cluster.trim(b"c", 2)
        gap = Gap("c", MessageId(1000, 1), MessageId(1000, 3))
        async with riverbus.connect(url_of(nodes)) as bus:
            async with bus.subscribe("c", since="1000-1") as subscription:
                found = [await anext(subscription) for _ in range(3)]
            assert found == [gap, Message("c", MessageId(1000, 4), b"3"), Message("c", MessageId(1000, 5), b"4")]
            async with bus.subscribe("c", since="1000-1", on_gap="raise") as raising:
                with pytest.raises(HistoryLost, match=r"messages of c in \(1000-1, 1000-3\] are gone"):
                    await anext(raising)
                assert (await anext(raising)).payload == b"3"

    tell(story)


def test_a_message_seen_before_is_dropped() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c") as subscription:
            cluster.publish(b"c", b"a")
            for session in cluster.sessions:
                session.followed[b"c"] = MessageId(0, 0)
                session.catch_up(b"c")
            cluster.publish(b"c", b"b")
            assert [message.payload for message in await take(subscription, 2)] == [b"a", b"b"]
            assert subscription.duplicates_dropped >= 1

    tell(story)


def test_a_refused_subscription_tries_the_next_node() -> None:
    async def story(nodes: list[Node]) -> None:
        for node in nodes:
            node.weather[b"BUS.SUBSCRIBE"] = ["CLUSTERDOWN no leader"]
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c"):
            pass

    tell(story, nodes=2)


def test_a_forbidden_subscription_raises() -> None:
    async def story(nodes: list[Node]) -> None:
        nodes[0].weather[b"BUS.SUBSCRIBE"] = ["NOPERM no"] * 3
        async with riverbus.connect(url_of(nodes)) as bus:
            with pytest.raises(Refused, match="NOPERM"):
                async with bus.subscribe("c", "d"):
                    pass
            with pytest.raises(Refused, match="NOPERM"):
                await anext(bus.subscribe("c"))

    tell(story)


def test_a_silent_node_is_left_by_its_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riverbus.client.subscription.HEARTBEAT_S", 0.05)

    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with riverbus.connect(url_of(nodes, "?reply_timeout=0.2")) as bus, bus.subscribe("c") as subscription:
            for session in cluster.sessions:
                session.is_hung = True
                session.followed.clear()
            cluster.publish(b"c", b"x")
            assert [message.payload for message in await take(subscription, 1)] == [b"x"]

    tell(story, nodes=2)


def test_a_node_cut_off_from_the_majority_is_left_by_its_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riverbus.client.subscription.HEARTBEAT_S", 0.05)

    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c") as subscription:
            for node in nodes:
                node.weather[b"XLEN"] = ["CLUSTERDOWN no leader"]
            for session in cluster.sessions:
                session.followed.clear()
            cluster.publish(b"c", b"x")
            assert [message.payload for message in await take(subscription, 1)] == [b"x"]

    tell(story, nodes=2)


def test_a_program_that_does_not_take_its_messages_stops_the_socket_not_the_memory() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        payload = bytes(64 * 1024)
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c", on_gap="raise") as subscription:
            for _ in range(500):  # 32 MiB
                cluster.publish(b"c", payload)
                await asyncio.sleep(0)
            await until(lambda: subscription._connection is not None and subscription._connection.is_paused)
            assert subscription._buffer_bytes < 6 * 1024 * 1024
            found = await take(subscription, 500)
            assert [message.id for message in found] == [MessageId(1000, i + 1) for i in range(500)]

    tell(story)


def test_a_pattern_subscription_names_a_gap_after_each_reconnection() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe(pattern="c*") as subscription:
            nodes[0].cut()
            assert await anext(subscription) == Gap(None, None, None, pattern="c*")
            await bus.publish("c1", "x")
            assert await anext(subscription) == Message("c1", None, b"x", pattern="c*")

    tell(story)


def test_what_cannot_be_subscribed_is_a_value_error() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            for channels, options, words in (
                ((), {}, "channels, or to a pattern"),
                (("c",), {"pattern": "d*"}, "channels, or to a pattern"),
                ((), {"pattern": "d*", "since": "0-0"}, "live only"),
                (("c",), {"since": "yesterday"}, "not a message id"),
            ):
                with pytest.raises(ValueError, match=words):
                    bus.subscribe(*channels, **options)  # type: ignore[call-overload]

    tell(story)


# --- history ----------------------------------------------------------------------------------------------------------


def test_history_started_anew_when_its_window_moves_has_no_hole() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        for i in range(200):
            cluster.publish(b"c", b"%d" % i)
        async with riverbus.connect(url_of(nodes)) as bus:
            read = asyncio.ensure_future(bus.history("c"))
            await until(lambda: any(command[0] == b"XRANGE" for command in nodes[0].commands))
            cluster.trim(b"c", 50)
            assert [message.payload for message in await read] == [b"%d" % i for i in range(150, 200)]

    tell(story)


def test_an_added_entry_comes_with_its_fields() -> None:
    async def story(nodes: list[Node]) -> None:
        async with riverbus.connect(url_of(nodes)) as bus:
            nodes[0].cluster.channel(b"c").log.append((MessageId(1, 1), [b"k", b"v", b"k2", b"v2"]))
            expected = Message("c", MessageId(1, 1), b"", fields={b"k": b"v", b"k2": b"v2"})
            assert await bus.history("c") == [expected]

    tell(story)
