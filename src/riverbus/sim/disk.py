"""What outlives a crash of a simulated node: its identity, its log (the native crate's in-memory one), its snapshots.

The log keeps what was synced and, at a power loss, of what was not whatever its torn sectors of 512 bytes leave whole
(native/src/torn.rs). Snapshot files become visible when they are committed, as a rename does. Damage, of the log or of
a snapshot: `rot` flips one durable bit or loses a sector; of the log it may also put back what there was at the last
power loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING

from riverbus._native import Log
from riverbus.sim.clock import Clock
from riverbus.sim.identity import SimIdentity

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode

SECTOR_BYTES = 512
FAST_S = (0.0001, 0.002)
_COMMIT_S = 0.005
_FETCH_S = (0.01, 0.5)


class Disk:
    def __init__(self, node: int, random: Random) -> None:
        self.identity = SimIdentity(node, random)
        self.log = Log.in_memory(random.getrandbits(64))
        self.snapshots: dict[tuple[int, int], list[bytes]] = {}
        self.sync_s = FAST_S
        self.is_stuck = False
        self.is_full = False
        self.is_failing = False  # the next sync fails, and with it the process
        self.is_damaged = False  # bits were flipped: its node may refuse to go on, and no more than that
        self.durable_batch = 0

    def heal(self) -> None:
        """The device works again; what is damaged stays so."""
        self.is_stuck = self.is_full = self.is_failing = False
        self.sync_s = FAST_S

    def sync(self) -> None:
        self.durable_batch = self.log.sync()

    def power_loss(self, seed: int) -> None:
        self.log = self.log.crash(seed)

    def rot(self, random: Random) -> str:
        """Damage what is durable; says what."""
        self.is_damaged = True
        keys = sorted(self.snapshots)
        if keys and random.random() < 0.3:
            key = random.choice(keys)
            slices = list(self.snapshots[key])
            at = random.randrange(len(slices))
            damaged = bytearray(slices[at])
            bit = random.randrange(len(damaged) * 8)
            if random.random() < 0.2:
                damaged[bit // 8 : bit // 8 + SECTOR_BYTES] = bytes(len(damaged[bit // 8 : bit // 8 + SECTOR_BYTES]))
            damaged[bit // 8] ^= 1 << (bit % 8)
            slices[at] = bytes(damaged)
            self.snapshots[key] = slices
            return f"snapshot {key[1]} of shard {key[0]}"
        self.log.flip_bit(random.getrandbits(64))
        return "the log"


class SimSnapshotFile:
    """core/ports.py SnapshotFile."""

    def __init__(self, disk: Disk, clock: Clock, key: tuple[int, int], is_current: Callable[[], bool]) -> None:
        self._disk = disk
        self._clock = clock
        self._key = key
        self._is_current = is_current
        self._slices: list[bytes] = []
        self.backlog_bytes = 0

    def write(self, framed_slice: bytes) -> None:
        self._slices.append(framed_slice)

    def commit(self, done: Callable[[str | None], None]) -> None:
        def finish() -> None:
            if not self._is_current():
                return
            if self._disk.is_full:
                done("no space left on device")
                return
            self._disk.snapshots[self._key] = self._slices
            done(None)

        self._clock.after(_COMMIT_S, finish)

    def abort(self) -> None:
        self._slices = []


class SimSnapshots:
    """core/ports.py Snapshots over the simulated disks, of one life of a node."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._life = node.life

    def _is_current(self) -> bool:
        return self._node.life == self._life and self._node.is_alive

    def create(self, shard: int, index: int) -> SimSnapshotFile:
        return SimSnapshotFile(self._node.disk, self._node.clock, (shard, index), self._is_current)

    def indexes(self, shard: int) -> list[int]:
        return sorted(index for number, index in self._node.disk.snapshots if number == shard)

    def read(self, shard: int, index: int) -> Iterator[bytes]:
        slices = self._node.disk.snapshots.get((shard, index))
        if slices is None:
            raise FileNotFoundError(f"snapshot {index} of shard {shard}")
        return iter(list(slices))

    def delete(self, shard: int, index: int) -> None:
        self._node.disk.snapshots.pop((shard, index), None)

    def fetch(self, peer: int, shard: int, index: int, done: Callable[[str | None], None]) -> None:
        node = self._node

        def finish() -> None:
            if not self._is_current():
                return
            source = node.others[peer]
            if not source.is_running or node.network.is_cut(peer, node.id) or node.network.is_cut(node.id, peer):
                outcome: str | None = "the peer cannot be reached"
            elif (slices := source.disk.snapshots.get((shard, index))) is None:
                outcome = "not found"
            elif node.disk.is_full:
                outcome = "no space left on device"
            else:
                node.disk.snapshots[shard, index] = list(slices)
                outcome = None
            node.while_running(lambda: self._tell(done, outcome))

        node.clock.after(node.random.uniform(*_FETCH_S), finish)

    def _tell(self, done: Callable[[str | None], None], outcome: str | None) -> None:
        self._node.input()
        done(outcome)
