"""The public tests of other people's clients, pointed at three nodes, end as on Redis: test by test.

redis-py's, channels_redis' and walrus' are what PyPI has with tests in it that take a server (suites/sources.txt says
which have none). Both servers are asked at once. Tests that do not end alike run once more, apart from the rest: some
measure time. Then each must be listed with its reason (suites/differences.txt), and what is listed must differ.

Here a part of them; `make suites` (RIVERBUS_SUITES=long) runs all.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.own_suites import SUITES, TOOLS, Outcome, Run, Suite, base_of, differing, listed_differences
from tests.faults.cluster import Cluster

IS_LONG = os.environ.get("RIVERBUS_SUITES") == "long"
CHOSEN = [suite for suite in SUITES if IS_LONG or suite.short]

Pair = tuple[dict[str, Outcome], dict[str, Outcome]]


def run_both(suite: Suite, ports: tuple[int, int], path: Path, chosen: list[str]) -> Pair:
    path.mkdir()
    runs = [Run(suite, port, path / f"{at}", chosen) for at, port in enumerate(ports)]
    on_redis, on_riverbus = (run.outcomes() for run in runs)
    return on_redis, on_riverbus


def describe(id_: str, outcomes: Pair) -> str:
    lines = [id_]
    for name, found in zip(("Redis", "Riverbus"), outcomes, strict=True):
        outcome = found.get(id_, Outcome("none"))
        lines.append(f"  {name}: {outcome.result} {outcome.message.strip()[-600:]}")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(1900 if IS_LONG else 240)
@pytest.mark.parametrize("suite", CHOSEN, ids=lambda suite: suite.name.replace(" ", "-"))
def test_a_suite_ends_as_on_redis(suite: Suite, cluster: Cluster, redis_url: str, tmp_path: Path) -> None:
    if not (suite.source.exists() and TOOLS.exists()):
        assert "CI" not in os.environ, "the suites are not installed: make clients"
        pytest.skip("the suites are not installed: make clients")
    ports = (urlsplit(redis_url).port or 0, cluster.nodes[1].resp_port)
    outcomes = run_both(suite, ports, tmp_path / "all", [*suite.files, *([] if IS_LONG else ["-k", suite.short])])
    on_redis, on_riverbus = outcomes
    ran = [outcome for outcome in on_redis.values() if outcome.result != "skipped"]
    passed = sum(outcome.result == "passed" for outcome in ran)
    assert len(ran) >= 5
    assert passed >= 0.75 * len(ran), "Redis itself fails the suite"

    listed = {
        line.partition(" ")[2]: reason
        for line, reason in listed_differences().items()
        if line.split(" ")[0] == suite.project
    }
    differences = differing(*outcomes)
    unlisted = [id_ for id_ in differences if base_of(id_) not in listed]
    if unlisted:
        again = run_both(suite, ports, tmp_path / "again", unlisted)
        unlisted = differing(*again)
    stale = {base_of(id_) for id_ in on_riverbus} & listed.keys() - {base_of(id_) for id_ in differences}
    alike = len(on_redis.keys() | on_riverbus.keys()) - len(differences)
    print(f"\n{suite.name}: {alike} tests end as on Redis ({passed} pass there), {len(differences)} differ as listed")
    assert not unlisted, "\n".join(describe(id_, again) for id_ in unlisted)
    assert not stale, f"listed in differences.txt, but they end as on Redis: {sorted(stale)}"
