"""Rules and durability as a program sees them, on three real engines in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from riverbus import Gap, Message, MessageId
from riverbus.client.connection import encode_command
from riverbus.client.embedded_cluster import ClusterDialer, EmbeddedCluster
from tests.client.contract import take
from tests.client.fake_server import until

NONE = {"channel": [{"match": "live.*", "durability": "none"}]}
Story = Callable[[EmbeddedCluster], Awaitable[None]]


def tell(story: Story, shards: int = 2) -> None:
    async def told() -> None:
        async with asyncio.timeout(40), EmbeddedCluster(settings={**NONE, "node": {"shards": shards}}) as cluster:
            await story(cluster)

    asyncio.run(told())


def test_messages_of_durability_none_reach_subscribers_of_every_node_in_order_and_are_kept_by_none() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        async with cluster.connect(1) as one, cluster.connect(2) as two, cluster.connect(3) as three:
            async with two.subscribe("live.a") as here, three.subscribe(pattern="live.*") as there:
                ids = [await one.publish("live.a", f"{at}") for at in range(50)]
                assert set(ids) == {MessageId(0, 0)}
                wanted = [Message("live.a", None, b"%d" % at) for at in range(50)]
                assert await take(here, 50) == wanted
                assert [message.payload for message in await take(there, 50)] == [each.payload for each in wanted]
            assert await two.history("live.a") == []
            assert await one.publish("kept", "x") != MessageId(0, 0)

    tell(story)


def test_an_ack_of_durability_none_survives_nothing_and_an_ack_of_quorum_beside_it_does() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        leader = cluster.leader()
        other = leader % 3 + 1
        pushes: list[list[bytes]] = []
        listener = await ClusterDialer(cluster, other).dial(pushes.append)
        await listener.call(encode_command(b"PSUBSCRIBE", b"live.*"))
        async with cluster.connect(leader) as near, cluster.connect(other, deadline=20) as far:
            async with cluster.partition():
                for at in range(20):  # acknowledged at once, and lost to all whom the node cannot reach
                    await near.execute("BUS.PUBLISH", "live.a", f"lost {at}")
                await far.execute("BUS.PUBLISH", "live.a", "of the majority")
                await far.publish("kept", "acknowledged")
            await near.execute("BUS.PUBLISH", "live.a", "healed")
            await until(lambda: len(pushes) == 2)
        assert [push[3] for push in pushes] == [b"of the majority", b"healed"]
        listener.close("the test is over")
        await cluster.kill(leader)
        async with cluster.connect(other, deadline=20) as far:
            assert [message.payload for message in await far.history("kept")] == [b"acknowledged"]

    tell(story, shards=1)


def test_a_subscription_to_durability_none_says_that_its_connection_was_lost() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        async with cluster.connect() as bus, bus.subscribe("live.a") as following:
            connection = following._connection
            assert connection is not None
            connection.close("cut by the test")
            assert await anext(following) == Gap("live.a", None, None)
            await bus.publish("live.a", "x")
            assert await take(following, 1) == [Message("live.a", None, b"x")]

    tell(story)


def test_a_rule_set_at_one_node_holds_on_all_and_outlives_its_leader() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        leader = cluster.leader()
        async with cluster.connect(leader % 3 + 1, deadline=20) as bus, cluster.connect(deadline=20) as other:
            first = await bus.publish("quick.a", "1")
            await bus.publish("other", "1")
            assert await bus.execute("BUS.RULE", "SET", "quick.*", "DURABILITY", "none") == b"OK"
            await cluster.kill(leader)
            rules = await other.execute("BUS.RULE", "LIST", is_read=True)
            assert [(rule[b"pattern"], rule[b"source"]) for rule in rules] == [
                (b"quick.*", b"command"),
                (b"live.*", b"configuration"),
                (b"*", b"default"),
            ]
            assert await other.publish("quick.a", "2") == MessageId(0, 0)
            assert await other.execute("BUS.RULE", "DEL", "quick.*") == 1
            assert await other.publish("quick.a", "3") > first

    tell(story)


@pytest.mark.parametrize("text", ["SET quick.* PAYLOAD 3"])
def test_one_message_that_is_too_large_does_not_take_its_turns_others_with_it(text: str) -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        async with cluster.connect() as bus:
            await bus.execute("BUS.RULE", *text.split())
            outcomes = await asyncio.gather(
                *(bus.publish("quick.a", payload) for payload in ("1", "4444", "3")), return_exceptions=True
            )
            assert [isinstance(each, MessageId) for each in outcomes] == [True, False, True]
            assert "the limit of this channel's rule is 3" in str(outcomes[1])
            assert [message.payload for message in await bus.history("quick.a")] == [b"1", b"3"]

    tell(story)
