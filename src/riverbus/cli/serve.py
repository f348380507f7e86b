"""`riverbus serve`: one node, until SIGINT or SIGTERM.

Every flag is a key of the configuration (runtime/config.py), where its default stands. The node itself is
runtime/node.py; this is its process: signals, logs, the collector, the exit code. The server's modules are loaded when
it runs and not before, so that `riverbus pub` starts sooner.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvloop

from riverbus.cli import output

if TYPE_CHECKING:
    from riverbus.runtime.config import Config
    from riverbus.runtime.node import Node

HOST_PORT = "HOST:PORT"


def serve(
    data: Annotated[
        Path | None, typer.Option(help="Directory of this node's data.", show_default="riverbus-data")
    ] = None,
    resp: Annotated[
        str | None, typer.Option(metavar=HOST_PORT, help="For Redis clients.", show_default="127.0.0.1:6380")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar=HOST_PORT,
            help="Kept for HTTP and WebSocket: nothing listens there until Riverbus speaks Pusher's protocol.",
            show_default="127.0.0.1:6001",
        ),
    ] = None,
    admin: Annotated[
        str | None, typer.Option(metavar=HOST_PORT, help="Health, metrics, status.", show_default="127.0.0.1:9601")
    ] = None,
    peer: Annotated[
        str | None, typer.Option(metavar=HOST_PORT, help="For the other nodes.", show_default="its own in --cluster")
    ] = None,
    node_id: Annotated[int | None, typer.Option(help="This node's number in its cluster.", show_default="1")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ID=HOST:PORT,...", help="Peer addresses of all nodes.", show_default="this node alone"),
    ] = None,
    secret_file: Annotated[Path | None, typer.Option(help="File with the secret that the nodes share.")] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate for Redis clients: they then use rediss://.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="... and its private key.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Authorities that clients' certificates must come from.")] = None,
    shards: Annotated[
        int | None, typer.Option(help="Raft groups; fixed when the cluster is created.", show_default="8")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="RIVERBUS_CONFIG", help="TOML file; see `riverbus config default`.")
    ] = None,
) -> None:
    """Run a node. With no arguments: a cluster of one, on this machine only."""
    from riverbus.runtime import logs
    from riverbus.runtime.config import ConfigError, load

    flags: dict[str, dict[str, Any]] = {
        "node": {"data": data, "id": node_id, "cluster": cluster, "secret_file": secret_file, "shards": shards},
        "resp": {"listen": resp},
        "http": {"listen": http},
        "admin": {"listen": admin},
        "peer": {"listen": peer},
        "tls": {"cert": tls_cert, "key": tls_key, "ca": tls_ca},
    }
    given = {
        section: {key: value for key, value in keys.items() if value is not None} for section, keys in flags.items()
    }
    try:
        settings = load(config, {section: keys for section, keys in given.items() if keys})
    except ConfigError as error:
        output.fail(*error.problems, code=output.USAGE)
    logs.configure(settings.log.level, settings.log.format)
    run(settings)


def run(config: Config) -> None:
    """Raises typer.Exit with 1 when the node could not start or failed, after it has said why."""
    from riverbus._native import LogError, RaftError
    from riverbus.runtime import logs, memory
    from riverbus.runtime.config import ConfigError
    from riverbus.runtime.identity import IdentityError
    from riverbus.runtime.node import NodeFailure
    from riverbus.runtime.node import serve as serve_node

    log = logs.get("process")

    def on_started(node: Node) -> None:
        memory.settle()
        # A SIGHUP before this would end the process; from here on it has the certificates read again.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, node.certificates.look, True)

    async def until_signal() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            log.info("the node stops", signal=number.name)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await serve_node(config, on_started)

    try:
        uvloop.run(until_signal())
    except asyncio.CancelledError:
        return
    except ConfigError as error:
        output.fail(*error.problems, code=output.USAGE)
    except LogError as error:
        output.fail(f"the log in {config.node.data}: {error}")
    except (OSError, IdentityError, RaftError, NodeFailure) as error:
        output.fail(output.reason(error))
