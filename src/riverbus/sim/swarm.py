"""What a seed draws for its world before anything happens: sizes, rates, windows, weather, and which faults may strike.

Each seed has its own few of everything (swarm testing: Groce et al., 2012): combinations that a world with all faults
at once would drown are met in some other world.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from riverbus import limits
from riverbus.core.state.rules import QUORUM, UNLIMITED, ChannelRule, Rules

FAULT_KINDS = (
    "crash",
    "crash_all",
    "pause",
    "isolate",
    "one_way",
    "halves",
    "ring",
    "bad_weather",
    "clog",
    "trickle",
    "reset",
    "stuck_disk",
    "slow_disk",
    "full_disk",
    "failing_sync",
    "clock_jump",
    "bit_rot",
    "wipe",
)
MEMORY_KINDS = ("crash_minority", "crash_everyone")  # for worlds of durability memory; never drawn
LASTING = ("bit_rot", "wipe")  # they cost a node for the rest of the run: seldom, or few runs had all their nodes


@dataclass(frozen=True, slots=True)
class Window:
    """What channels keep. `is_memory_short`: the shard's memory is too small for its windows."""

    count: int | None = None
    age_ms: int | None = None
    is_memory_short: bool = False

    def rules(self, durability: str = QUORUM) -> Rules:
        rule = ChannelRule(
            durability=durability,
            count=self.count or 10**6,
            age_ms=UNLIMITED if self.age_ms is None else self.age_ms,
            bytes=limits.GIB,
            window_ms=limits.PUBLISH_WINDOW_MS_MAX,  # clocks jump by minutes
        )
        return Rules(default=rule, shard_bytes_max=150_000 if self.is_memory_short else limits.GIB)

    @property
    def is_unlimited(self) -> bool:
        return self == Window()


@dataclass(frozen=True, slots=True)
class Weather:
    """The network while no fault worsens it."""

    delay_s: tuple[float, float] = (0.0002, 0.002)
    loss: float = 0.0
    duplication: float = 0.0
    reorder: float = 0.0

    @property
    def is_rain(self) -> bool:
        return bool(self.loss or self.duplication or self.reorder)


@dataclass(frozen=True, slots=True)
class Swarm:
    nodes: int
    shards: int
    turn_s: float  # inputs of one turn arrive within it: what makes batches
    publishes_per_s: float  # of all publishers together
    publishers: int
    in_flight: int
    burst: int
    payload_bytes: int
    channels: int
    streams: int  # written by XADD
    window: Window
    snapshot_log_bytes: int
    snapshot_log_s: float
    weather: Weather
    drift: float  # of ticks and wall clocks, as a share
    retries: bool
    has_plain_subscribers: bool
    fault_pace_s: float
    fault_kinds: tuple[str, ...]
    heals_all_at_once: bool  # or a majority first
    has_keys: bool  # where publishers retry: each under a key of its own
    members: int  # of a consumer group on the first stream
    claim_ms: int  # for so long a member's entries are its own
    is_memory: bool = False  # channels are of durability memory; only where it is asked for


def draw(random: Random) -> Swarm:
    nodes = random.choices((1, 2, 3, 4, 5, 6, 7), (4, 3, 50, 8, 25, 4, 6))[0]
    window = random.choices(
        (
            Window(),
            Window(count=random.choice((1, 3, 10, 40))),
            Window(age_ms=random.randint(500, 8_000)),
            Window(is_memory_short=True),
        ),
        (55, 30, 10, 5),
    )[0]
    fair = Weather()
    weather = random.choices(
        (
            fair,
            Weather(delay_s=(0.001, random.uniform(0.002, 0.08))),
            Weather(
                delay_s=(0.0002, random.uniform(0.002, 0.03)),
                loss=random.uniform(0.0, 0.3),
                duplication=random.uniform(0.0, 0.5),
                reorder=random.uniform(0.0, 0.5),
            ),
        ),
        (60, 20, 20),
    )[0]
    kinds = tuple(kind for kind in FAULT_KINDS if random.random() < (0.15 if kind in LASTING else 0.45)) or ("crash",)
    payload_bytes = random.choice((16, 16, 100, 2000))
    return Swarm(
        nodes=nodes,
        shards=random.choice((1, 2, 2, 3)),
        turn_s=random.choice((0.0003, 0.001, 0.004)),
        publishes_per_s=random.uniform(20.0, 80.0),
        publishers=random.randint(1, 3),
        in_flight=random.choice((1, 8, 64)),
        burst=random.choice((3, 3, 20)),
        payload_bytes=payload_bytes,
        channels=random.randint(1, 4),
        streams=random.choice((0, 0, 1)),
        window=window,
        snapshot_log_bytes=(payload_bytes + 100) * random.choice((40, 400, 10**7)),
        snapshot_log_s=random.choice((4.0, 20.0, 600.0)),
        weather=weather,
        drift=random.choice((0.0, 0.0, 0.02, 0.1)),
        retries=random.random() < 0.3,
        has_plain_subscribers=random.random() < 0.5,
        fault_pace_s=random.uniform(0.5, 4.0),
        fault_kinds=kinds,
        heals_all_at_once=random.random() < 0.5,
        has_keys=random.random() < 0.5,
        members=0 if window.is_memory_short else random.choices((0, 1, 2, 3), (60, 5, 20, 15))[0],
        claim_ms=random.choice((100, 1000, 4000)),
    )
