"""A subscriber with a durable name whose connection breaks over and over, in random stories: nothing is missed.

Bytes that were not confirmed are lost with a connection, sockets are full now and then, and an old connection may be
seen to go long after the client came back. What comes twice is only what could not be known to have arrived.
"""

from __future__ import annotations

import random

import pytest

from riverbus.commands import ClientSetName, Subscribe
from riverbus.core.clients.glob import Glob
from riverbus.messages import Kind
from tests.core.fakes import FakeNode
from tests.core.test_durable import NAME, come_back, publish

SPACES = (("channel", b"a"), ("channel", b"b"), ("pattern", b"*"), ("pattern", b"a*"), ("shard", b"a"))
CHANNELS = (b"a", b"b", b"ab", b"ac")


class Story:
    """One durable subscriber that loses its connection over and over, and what it must have got."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.node = FakeNode(shards=2)
        self.publisher = self.node.connect()
        self.published: dict[tuple[int, bytes], list[bytes]] = {}
        self.seen: dict[tuple[str, bytes, bytes], list[bytes]] = {}
        self.twice = 0
        self.client = come_back(self.node, *(Subscribe(space, (name,)) for space, name in SPACES))

    def step(self) -> None:
        dice, node = self.dice, self.node
        what = dice.random()
        if what < 0.6:
            channel, kind = dice.choice(CHANNELS), dice.choice((Kind.PUBLISH, Kind.PUBLISH, Kind.SPUBLISH))
            sent = self.published.setdefault((kind, channel), [])
            payloads = [b"%d" % (len(sent) + at) for at in range(dice.randint(1, 3))]
            sent += payloads
            self.publisher.send(publish(channel, *payloads, kind=kind))
        elif what < 0.75:
            node.settle()
        elif what < 0.9:
            node.advance(dice.choice((0.001, 0.1, 0.3)))
        elif what < 0.95:
            session = self.client.session
            session.on_writable() if session.is_blocked else session.on_blocked()
            node.end_turn()
        else:
            self.break_off()

    def break_off(self) -> None:
        """Some of the newest bytes are lost; the client comes back, and perhaps is seen to go only later."""
        output = self.client.output
        output.lose(self.dice.randint(0, len(output.data)))
        self.take()
        old = self.client
        if self.dice.random() < 0.7:
            old.disconnect()
        else:
            self.node.advance(0.3)
        subscriptions = [Subscribe(space, (name,)) for space, name in SPACES]
        self.dice.shuffle(subscriptions)
        self.client = self.node.connect(self.dice.choice((2, 3)))
        self.client.output.slack = self.dice.choice((0, 20, 2000))
        self.client.send(ClientSetName(NAME), *subscriptions)
        if self.dice.random() < 0.5:
            self.node.settle()
        if not old.session.is_closed:
            old.disconnect()

    def take(self) -> None:
        for item in self.client.read():
            if not isinstance(item, list) or not item[0].endswith(b"message"):
                continue
            space = {b"message": "channel", b"pmessage": "pattern", b"smessage": "shard"}[item[0]]
            name = item[1]
            channel = item[-2]
            seen = self.seen.setdefault((space, name, channel), [])
            payload = item[-1]
            if seen and int(payload) <= int(seen[-1]):
                self.twice += 1
                assert payload in seen
                del seen[seen.index(payload) :]
            seen.append(payload)

    def check(self) -> None:
        if self.client.session.is_blocked:
            self.client.session.on_writable()
        for _ in range(3):
            self.node.settle()
            self.node.advance(0.5)
        self.take()
        for space, name in SPACES:
            kind = Kind.SPUBLISH if space == "shard" else Kind.PUBLISH
            for channel in CHANNELS:
                if Glob(name).matches(channel) if space == "pattern" else name == channel:
                    assert self.seen.get((space, name, channel), []) == self.published.get((kind, channel), [])


@pytest.mark.parametrize("seed", range(30))
def test_whatever_breaks_nothing_is_missed(seed: int) -> None:
    story = Story(seed)
    for _ in range(300):
        story.step()
    story.check()
    for bus in story.node.buses:
        bus.invariants()
