"""How long from publish to delivery, at 10,000/s and 50,000/s offered to a cluster of three, 100 B: p99?

Open loop: message i is due at i/rate whatever happens to those before it, carries that time, and its latency counts
from it, so a stall is paid by every message that it delays (no coordinated omission). The publisher is at the node that
leads the channel, the subscriber at another. Against NATS JetStream with a stream of three replicas on file and a push
consumer, so that both deliver only what is committed (a core NATS subscriber would get it before). What NATS had not
delivered five seconds after the end is missing from its percentiles, which are then lower bounds; `details` says so.
"""

from __future__ import annotations

from benchmarks.harness import BenchmarkError, Budget, Row, interleave
from benchmarks.load import Outcome, generate
from benchmarks.peers import DELIVERED, Cluster, nats_cluster, push_consumer, riverbus_cluster

RATES = (10_000, 50_000)
PEER = "NATS JetStream R3"
_FORWARDED = "forwarded"


def measure(budget: Budget) -> list[Row]:
    details: dict[str, dict[str, object]] = {key: {} for key in (*map(str, RATES), _FORWARDED)}

    def offer(cluster: Cluster, publish_port: int, key: str, rate: int, **options: str) -> dict[str, float]:
        subscribe_port = cluster.others[1 if publish_port == cluster.others[0] else 0]
        outcome = generate(
            budget,
            protocol=cluster.protocol,
            publish_ports=[publish_port],
            subscribe_ports=[subscribe_port],
            subscribers=1,
            stamps=1,
            rate=rate,
            bytes=100,
            **options,
        )
        if cluster.protocol == "resp":
            outcome.must_be_complete()
        return {key: _p99(outcome, details[key], PEER if cluster.protocol == "nats" else "Riverbus")}

    def peer() -> dict[str, float]:
        result: dict[str, float] = {}
        for rate in RATES:  # a cluster each: NATS doesn't recover from an overload within seconds
            with nats_cluster() as cluster:
                push_consumer(cluster)
                result |= offer(cluster, cluster.leader, str(rate), rate, deliver=DELIVERED)
        return result

    def ours() -> dict[str, float]:
        result: dict[str, float] = {}
        with riverbus_cluster() as cluster:
            for rate in RATES:
                result |= offer(cluster, cluster.leader, str(rate), rate)
            return result | offer(cluster, cluster.others[0], _FORWARDED, RATES[0])

    pairs = interleave(ours, peer, budget.pairs)
    pairs.peer[_FORWARDED] = pairs.peer.get(str(RATES[0]), [])
    rows = []
    for key in details:
        rate = RATES[0] if key == _FORWARDED else int(key)
        figure = f"3 nodes, publish to deliver at {rate:,}/s, p99"
        row = Row("latency", figure, "ms", PEER, judged="ours", is_more_better=False, details=details[key])
        if key == _FORWARDED:
            row.figure = f"the same at {rate:,}/s, publisher at a node that doesn't lead"
        else:
            row.floor, row.aim = 25, 5
        rows.append(pairs.fill(row, key))
    return rows


def _p99(outcome: Outcome, details: dict[str, object], system: str) -> float:
    times = outcome.deliver_times
    if times is None:
        raise BenchmarkError("nothing was delivered in the measured time")
    text = f"{times.p50:.2f}/{times.p99:.2f}/{times.p999:.2f}/{times.max:.2f}"
    if outcome.undelivered:
        text += f" and {outcome.undelivered:,} of {outcome.undelivered + times.count:,} never"
    samples = details.setdefault(f"{system}, p50/p99/p99.9/max", [])
    assert isinstance(samples, list)
    samples.append(text)
    return times.p99
