"""/metrics: Prometheus' text, made at the scrape from the node's status, so that hot paths only count plain numbers.

The tables below say which field of the status is which metric: `riverbus_<part>_<what>_<unit or total>`, base units,
and labels that are bounded by the configuration (a shard, a peer) or by the code (a reason); never a channel's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from riverbus.runtime.turn import Histogram


class Row(NamedTuple):
    """One metric of one number of the status. A name that ends in _total is a counter's."""

    field: str
    name: str
    help: str
    scale: float = 1.0  # to base units


NODE = (
    Row("ready", "riverbus_node_ready", "1 if this node can commit now"),
    Row("disk_full", "riverbus_node_disk_full", "1 if publishes are refused because the disk is full"),
)
SHARDS = (
    Row("is_leader", "riverbus_shard_leader", "1 if this node leads the shard"),
    Row("term", "riverbus_shard_term", "Raft's term"),
    Row("commit", "riverbus_shard_commit_index", "the last entry known to be committed"),
    Row("applied", "riverbus_shard_applied_index", "the last entry applied on this node"),
    Row("first", "riverbus_shard_log_first_index", "the first entry in the log"),
    Row("last", "riverbus_shard_log_last_index", "the last entry in the log"),
    Row("snapshot", "riverbus_shard_snapshot_index", "the entry up to which the newest snapshot reaches"),
    Row("snapshots_taken", "riverbus_shard_snapshots_taken_total", "snapshots written"),
    Row("snapshots_failed", "riverbus_shard_snapshots_failed_total", "snapshots that could not be written or fetched"),
    Row(
        "snapshots_installed", "riverbus_shard_snapshots_installed_total", "snapshots fetched from a peer and installed"
    ),
    Row("channels", "riverbus_shard_channels", "channels with state"),
    Row("messages", "riverbus_shard_retained_messages", "messages retained"),
    Row("bytes", "riverbus_shard_retained_bytes", "memory of retained messages"),
    Row("pending_bytes", "riverbus_shard_pending_bytes", "publishes of this node's clients that wait to be committed"),
    Row("unknown_outcomes", "riverbus_shard_unknown_outcomes_total", "publishes answered with -UNKNOWN"),
)
SESSIONS = (
    Row("connected", "riverbus_clients_connected", "client connections"),
    Row("opened", "riverbus_clients_opened_total", "client connections since the start"),
    Row("rejected", "riverbus_clients_rejected_total", "client connections refused: too many"),
    Row("blocked_reads", "riverbus_clients_blocked_reads", "clients that wait in XREAD BLOCK"),
    Row("published_messages", "riverbus_messages_published_total", "messages acknowledged to clients of this node"),
    Row("delivered_messages", "riverbus_messages_delivered_total", "messages delivered to subscribers of this node"),
    Row("early_answers", "riverbus_messages_answered_early_total", "of durability memory: acknowledged before the log"),
    Row("error_replies", "riverbus_clients_error_replies_total", "errors answered"),
)
LOG = (
    Row("batches", "riverbus_log_batches_total", "batches of the log made durable"),
    Row("writes", "riverbus_log_writes_total", "writes to the log's files"),
    Row("syncs", "riverbus_log_syncs_total", "fdatasync calls"),
    Row("sync_ns_total", "riverbus_log_sync_seconds_total", "time in fdatasync", 1e-9),
    Row("sync_ns_max", "riverbus_log_sync_seconds_max", "the longest fdatasync", 1e-9),
    Row("bytes_written", "riverbus_log_written_bytes_total", "bytes appended to the log"),
    Row("queue_depth", "riverbus_log_queue_batches", "batches that wait for the log's thread"),
    Row("purges", "riverbus_log_purges_total", "times that old files of the log were dropped"),
    Row("disk_bytes", "riverbus_log_disk_bytes", "size of the log's files"),
)


class Metrics:
    """`render` is what /metrics answers."""

    def __init__(
        self, status: Callable[[], Mapping[str, Any]], histograms: Mapping[str, tuple[str, Histogram]]
    ) -> None:
        """`histograms` by name, with their help; their values are seconds."""
        self._registry = CollectorRegistry()
        self._registry.register(_StatusCollector(status, histograms))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _StatusCollector(Collector):
    def __init__(
        self, status: Callable[[], Mapping[str, Any]], histograms: Mapping[str, tuple[str, Histogram]]
    ) -> None:
        self._status = status
        self._histograms = histograms

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would collect once at registration, before the node is up

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        if "version" in status:
            yield InfoMetricFamily("riverbus_build", "the version that runs", {"version": str(status["version"])})
        yield from _families(NODE, [({}, status)])
        shards = [
            ({"shard": str(shard["shard"])}, {**shard, "is_leader": shard["role"] == "leader"})
            for shard in status.get("shards", ())
        ]
        yield from _families(SHARDS, shards)
        sessions = status.get("sessions", {})
        yield from _families(SESSIONS, [({}, sessions)])
        yield from _peers(status)
        yield from _labelled(
            sessions.get("subscriptions"), "riverbus_subscriptions", "space", "subscriptions of this node's clients"
        )
        yield from _labelled(
            sessions.get("commands"), "riverbus_commands_total", "command", "commands carried out, by name"
        )
        yield from _labelled(
            sessions.get("dropped"), "riverbus_dropped_total", "reason", "messages and connections given up, by reason"
        )
        yield from _families(LOG, [({}, status.get("log", {}))])
        for name, (text, histogram) in self._histograms.items():
            yield _histogram(name, text, histogram)


def _families(rows: Iterable[Row], samples: Sequence[tuple[dict[str, str], Mapping[str, Any]]]) -> Iterable[Metric]:
    """A family for each row that the samples have: labels and the mapping with the row's field."""
    for row in rows:
        found = [(labels, fields[row.field]) for labels, fields in samples if fields.get(row.field) is not None]
        if not found:
            continue
        family = _family(row.name, row.help, list(found[0][0]))
        for labels, value in found:
            family.add_metric(list(labels.values()), float(value) * row.scale)
        yield family


def _family(name: str, text: str, labels: list[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, text, labels=labels)


def _labelled(values: Mapping[str, int] | None, name: str, label: str, text: str) -> Iterable[Metric]:
    if values:
        family = _family(name, text, [label])
        for key, value in sorted(values.items()):
            family.add_metric([key], float(value))
        yield family


def _peers(status: Mapping[str, Any]) -> Iterable[Metric]:
    others = [voter for voter in status.get("voters", ()) if voter != status.get("node")]
    if others:
        family = GaugeMetricFamily("riverbus_peer_up", "1 if there is a link to the node", labels=["peer"])
        for peer in others:
            family.add_metric([str(peer)], float(peer in status.get("peers_up", ())))
        yield family


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text)
    buckets: list[tuple[str, float]] = []
    count = 0
    for bound, inside in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        count += inside
        buckets.append((str(bound), float(count)))
    family.add_metric([], buckets, sum_value=histogram.total)
    return family
