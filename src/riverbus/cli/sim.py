"""`riverbus sim`: clusters in a simulated world, from seeds. Exit code 1 when a promise breaks, and how to replay it.

`--scenario FILE` tells a story of tests/scenarios instead, and prints it with what comes of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
import xxhash

from riverbus.cli import output
from riverbus.sim import scenario
from riverbus.sim.campaign import Outcome, Totals, replay_command, run_seeds, shrink
from riverbus.sim.world import Options

_PROBLEMS_SHOWN = 10


def sim(
    seed: Annotated[int, typer.Option(help="Where all that happens comes from.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds, from --seed on.")] = 1,
    nodes: Annotated[int | None, typer.Option(min=1, max=7, help="In each cluster; else each seed draws it.")] = None,
    chaos: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Simulated time with faults.")] = 60.0,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N", min=0.1, help="Publishes a second that all clients together try; else each seed draws it."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="Begin no more seeds after so long; 0: all of them.")] = 0,
    faults: Annotated[bool, typer.Option(help="Let things go wrong.")] = True,
    only_faults: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Only these of the seed's faults, as a failure names them.")
    ] = None,
    shrink_s: Annotated[
        float, typer.Option("--shrink", metavar="SECONDS", min=0, help="How long to look for fewer faults that fail.")
    ] = 120.0,
    story: Annotated[
        Path | None, typer.Option("--scenario", metavar="FILE", help="Tell this story, and nothing else.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object on the last line.")] = False,
) -> None:
    """Run whole clusters in virtual time, with every fault we can think of, and check what they promise."""
    if story is not None:
        _tell_story(story)
        return
    only = None if only_faults is None else _numbers(only_faults)
    totals = Totals()
    began = time.monotonic()
    all_options = [Options(number, nodes, chaos, faults, only, rate) for number in range(seed, seed + seeds)]
    for outcome in run_seeds(all_options, jobs or os.cpu_count() or 1):
        totals.add(outcome)
        totals.wall_s = time.monotonic() - began
        if outcome.is_failed:
            _tell(outcome, shrink_s if only is None else 0.0)
        if minutes and totals.wall_s >= minutes * 60:
            break
    if json:
        output.print_json(_figures(totals, seed))
    else:
        for name, value in _figures(totals, seed).items():
            output.write_line(f"{name:20} {value}".encode())
    if totals.failed:
        raise typer.Exit(output.FAILED)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",") if number)
    except ValueError:
        output.fail(f"--only-faults {text}: write numbers, with commas between them", code=output.USAGE)


def _tell_story(file: Path) -> None:
    try:
        output.write_line(scenario.run(file.read_text()).rstrip("\n").encode())
    except scenario.ScenarioError as error:
        output.fail(f"{file}: {error}")


def _tell(outcome: Outcome, shrink_s: float) -> None:
    """On standard error: what broke, the fewest faults that break it, and the command."""
    say = output.errors.print
    say(f"seed {outcome.options.seed} failed", markup=False)
    if shrink_s and len(outcome.struck) > 1:
        count = len(outcome.struck)
        outcome = shrink(outcome, seconds=shrink_s)
        say(f"{count} faults shrunk to {len(outcome.struck)}", markup=False)
    for line in (*outcome.fault_log, *outcome.problems[:_PROBLEMS_SHOWN]):
        say(f"  {line}", markup=False)
    if len(outcome.problems) > _PROBLEMS_SHOWN:
        say(f"  ... and {len(outcome.problems) - _PROBLEMS_SHOWN} more", markup=False)
    say(f"replay: {replay_command(outcome.options)}", markup=False)


def _figures(totals: Totals, seed: int) -> dict[str, object]:
    """`trace` is the seed's own, or the digest of all seeds' traces in order."""
    traces = totals.traces
    return {
        "first_seed": seed,
        "seeds": totals.seeds,
        "failed": totals.failed,
        "cluster_hours": round(totals.cluster_hours, 4),
        "faults": totals.faults,
        "operations": totals.operations,
        "published": totals.published,
        "acked": totals.acked,
        "refused": totals.refused,
        "reads": totals.reads,
        "delivered": totals.delivered,
        "gaps": totals.gaps,
        "elections": totals.elections,
        "snapshots_installed": totals.snapshots_installed,
        "nodes_lost": totals.nodes_lost,
        "handed_out": totals.handed_out,
        "group_acked": totals.group_acked,
        "published_per_s": round(totals.per_simulated_s(totals.published), 1),
        "acked_per_s": round(totals.per_simulated_s(totals.acked), 1),
        "longest_wait_s": round(totals.longest_wait_s, 3),
        "wall_s": round(totals.wall_s, 2),
        "speed": round(totals.speed, 1),
        "speed_cpu": round(totals.speed_cpu, 1),
        "faults_per_s": round(totals.faults_per_s, 1),
        "trace": traces[0] if len(traces) == 1 else xxhash.xxh3_128_hexdigest("".join(traces).encode()),
    }
