"""`riverbus bench`: how fast is this cluster, and, with --peer, how fast beside another server in the same run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from riverbus.cli import output
from riverbus.cli.bench_load import BenchError, Outcome, Work, measure
from riverbus.cli.client_options import URL_DEFAULT, Url
from riverbus.client.address import Address, parse_url

_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}


def bench(
    msgs: Annotated[int, typer.Option(min=1, help="Messages to publish.")] = 100_000,
    size: Annotated[int, typer.Option(min=0, help="Bytes of each.")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="Publishing connections, spread over the URL's hosts.")] = 1,
    subscribers: Annotated[int, typer.Option(min=0, help="Subscribed connections.")] = 0,
    pipeline: Annotated[int, typer.Option(min=1, help="Commands in flight on each connection.")] = 256,
    rate: Annotated[
        float, typer.Option(min=0, help="Messages a second, whatever the replies; 0: as fast as they are answered.")
    ] = 0,
    channel: Annotated[str, typer.Option(help="Where to publish.")] = "bench",
    peer: Annotated[
        str | None, typer.Option(metavar="URL", help="A server to compare with: the same work, as a ratio.")
    ] = None,
    url: Url = URL_DEFAULT,
    json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Publish at full speed, or at a rate, and print throughput and latencies."""
    work = Work(msgs, size, clients, subscribers, pipeline, rate, channel.encode())
    targets = {"riverbus": parse_url(url)}
    if peer is not None:
        targets["peer"] = parse_url(peer)
    try:
        outcomes = {name: _measure(name, target, work, json) for name, target in targets.items()}
    except BenchError as error:
        output.fail(str(error))
    results = {name: _figures(outcome) for name, outcome in outcomes.items()}
    if peer is not None:
        results["ratio"] = _ratios(results["riverbus"], results["peer"])
    if json:
        output.print_json({"work": asdict(work) | {"channel": channel}, **results})
    elif output.is_terminal():
        output.console().print(_table(results))
    else:
        for name, figures in results.items():
            output.write_line(" ".join([name, *(f"{key}={value:.6g}" for key, value in figures.items())]).encode())


def _measure(name: str, target: Address, work: Work, is_quiet: bool) -> Outcome:
    try:
        if is_quiet or not output.is_terminal():
            return uvloop.run(measure(target, work))
        with output.errors.status(f"publishing {work.messages:,} messages of {work.size} bytes to {name}"):
            return uvloop.run(measure(target, work))
    except OSError as error:
        raise BenchError(f"{name} cannot be reached: {output.reason(error)}") from error


def _figures(outcome: Outcome) -> dict[str, float]:
    figures = {"msgs_per_s": outcome.rate}
    if outcome.delivered:
        figures["delivered_per_s"] = outcome.delivered_rate
    return figures | {f"{name}_ms": outcome.percentile(share) * 1000 for name, share in _SHARES.items()}


def _ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Ours over theirs: of rates more is better, of times less is."""
    return {key: value / theirs[key] for key, value in ours.items() if theirs.get(key)}


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    keys = list(results["riverbus"])
    for key in keys:
        table.add_column(key, justify="right")
    for name, figures in results.items():
        form = "{:.2f}x" if name == "ratio" else "{:,.2f}"
        table.add_row(name, *(form.format(figures[key]) if key in figures else "" for key in keys))
    return table
