"""The pytest plugin, in pytest processes of their own: as someone's test suite has it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PLUGIN = "riverbus.contrib.pytest_plugin"  # also the entry point's name: asked for and found, it is loaded once
ARGUMENTS = ["-p", PLUGIN, "-p", "no:cacheprovider", "--strict-markers", "-W", "error", "-q"]


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess(*ARGUMENTS, *arguments, timeout=60)


def test_a_test_injects_what_it_likes_and_nothing_is_left_behind(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import asyncio
        import pytest
        from riverbus import Gap, NotAccepted, OutcomeUnknown

        def test_failover(riverbus):
            async def story():
                async with riverbus.connect() as bus, bus.subscribe("c", on_gap="raise") as messages:
                    first = await bus.publish("c", "before")
                    await riverbus.failover()
                    second = await bus.publish("c", "after")
                    assert [(await anext(messages)).id, (await anext(messages)).id] == [first, second]
            asyncio.run(story())

        def test_partition(riverbus):
            async def story():
                bus = riverbus.connect(deadline=0.1)
                await bus.publish("c", "1")
                async with riverbus.partition(1, 2, 3):
                    await bus.publish("c", "2")
                async with riverbus.partition():
                    with pytest.raises((NotAccepted, OutcomeUnknown)):
                        await riverbus.connect(riverbus.leader(), deadline=0.1).execute("PUBLISH", "c", "3")
            asyncio.run(story())

        @pytest.mark.riverbus(nodes=1, settings={"history": {"count": 2}})
        def test_slow_consumer(riverbus):
            async def story():
                async with riverbus.connect() as bus, bus.subscribe("c") as messages:
                    async with riverbus.slow_consumers():
                        for i in range(9):
                            await bus.publish("c", f"{i}")
                    assert isinstance(await anext(messages), Gap)
                    assert (await anext(messages)).payload == b"7"
            asyncio.run(story())
        """,
    )
    result.assert_outcomes(passed=3)


def test_a_loop_that_outlives_the_test_is_left_clean(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import asyncio
        import pytest

        @pytest.fixture(scope="session")
        def runner():
            with asyncio.Runner() as runner:
                yield runner

        @pytest.mark.parametrize("turn", [1, 2])
        def test_alone(runner, riverbus, turn):
            async def story():
                assert len(asyncio.all_tasks()) == 1
                bus = riverbus.connect()
                await bus.publish("c", "x")
                return await bus.length("c")
            assert runner.run(story()) == 1
        """,
    )
    result.assert_outcomes(passed=2)


def test_unused_it_loads_nothing(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import sys

        def test_light():
            loaded = {name for name in sys.modules if name.split(".")[0] in ("riverbus", "hiredis", "pydantic")}
            assert loaded <= {"riverbus", "riverbus.contrib", "riverbus.contrib.pytest_plugin"}
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_wrong_marker_is_named(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.riverbus(size=5)
        def test_wrong(riverbus):
            pass
        """,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*takes nodes=... and settings=... only*"])


def test_the_marker_is_listed(pytester: pytest.Pytester, tmp_path: Path) -> None:
    result = run(pytester, "", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.riverbus(nodes=3, settings={})*"])
