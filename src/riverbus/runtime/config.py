"""A node's configuration: flags over environment (`RIVERBUS_SECTION_KEY`) over a TOML file; every default works.

The models below are the one table of keys, with their defaults and what they are for: `config default` prints them
(config_text.py), an unknown key is an error that names the nearest one. Values have units ("10m", "64MiB": units.py).
Secrets are `SecretStr`, which never prints. What would open a node to a network without authentication is refused here.
Nothing of this is replicated but the channel rules, which the first node's configuration brings into the log.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from riverbus import limits
from riverbus.core.state.rules import DURABILITIES, QUORUM
from riverbus.runtime.config_users import ClientTls, Section, Tls, User
from riverbus.runtime.units import Address, parse_address, parse_bytes, parse_cluster, parse_duration

ENVIRONMENT_PREFIX = "RIVERBUS_"
LAYERS = ("flags", "environment", "file")  # the first that sets a key holds
FLAGS = {  # of `riverbus serve`, by the key that each sets
    "node.data": "--data",
    "node.id": "--node-id",
    "node.cluster": "--cluster",
    "node.secret_file": "--secret-file",
    "node.shards": "--shards",
    "resp.listen": "--resp",
    "http.listen": "--http",
    "admin.listen": "--admin",
    "peer.listen": "--peer",
    "tls.cert": "--tls-cert",
    "tls.key": "--tls-key",
    "tls.ca": "--tls-ca",
}
_NOT_SETTINGS = frozenset({"RIVERBUS_CONFIG", "RIVERBUS_URL"})  # of the command line itself
_HISTORY_MAX = 2**62  # as core/state/rules.py UNLIMITED


class ConfigError(Exception):
    """What is wrong, one line a problem, worded for an operator."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not HOST:PORT")
    return parse_address(value)


def _cluster(value: object) -> object:
    return parse_cluster(value) if isinstance(value, str) else value


Listen = Annotated[Address, BeforeValidator(_address)]
Milliseconds = Annotated[int, BeforeValidator(parse_duration), Field(ge=0, le=_HISTORY_MAX)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, le=_HISTORY_MAX)]
Count = Annotated[int, Field(ge=0, le=_HISTORY_MAX)]


class Node(Section):
    id: int = Field(default=1, ge=1, lt=2**32, description="this node's number, unique in its cluster")
    data: Path = Field(
        default=Path("riverbus-data"), description="directory of the log, the snapshots and the node's identity"
    )
    shards: int = Field(
        default=limits.SHARDS_DEFAULT,
        ge=1,
        le=limits.SHARDS_MAX,
        description="Raft groups that channels are spread over; fixed when the cluster is created",
    )
    cluster: Annotated[dict[Annotated[int, Field(ge=1, lt=2**32)], Listen], BeforeValidator(_cluster)] = Field(
        default={},
        max_length=limits.NODES_MAX,
        description='peer addresses of all nodes: "1=HOST:PORT,2=HOST:PORT,..."',
    )
    secret_file: Path | None = Field(default=None, description="file with the secret that the cluster's nodes share")


class Resp(Section):
    listen: Listen = Field(default=Address("127.0.0.1", 6380), description="HOST:PORT for Redis clients")


class Http(Section):
    listen: Listen = Field(
        default=Address("127.0.0.1", 6001),
        description="HOST:PORT kept for HTTP and WebSocket; nothing listens there until the Pusher protocol exists",
    )


class Admin(Section):
    listen: Listen = Field(default=Address("127.0.0.1", 9601), description="HOST:PORT of health, metrics and status")
    token: SecretStr | None = Field(default=None, description="bearer token that /metrics and /status then ask for")
    tls: Tls = Tls()


class Peer(Section):
    listen: Listen | None = Field(default=None, description="HOST:PORT for other nodes; default: its own in cluster")
    tls: Tls = Tls()


class History(Section):
    count: Count = Field(default=limits.HISTORY_COUNT_DEFAULT, description="messages kept per channel")
    age: Milliseconds = Field(default=limits.HISTORY_AGE_MS_DEFAULT, description="... no older than this")
    bytes: Bytes = Field(default=limits.HISTORY_BYTES_DEFAULT, description="... and no more of them than this")


class ChannelHistory(Section):
    """A rule's own limits; what it leaves out is as in [history]."""

    count: Count | None = None
    age: Milliseconds | None = None
    bytes: Bytes | None = None


def _durability(value: Any) -> Any:
    if value not in DURABILITIES:
        raise ValueError(f"choose {', '.join(DURABILITIES[:-1])} or {DURABILITIES[-1]}")
    return value


class Channel(Section):
    """What BUS.RULE can command too; rules that were commanded come first."""

    match: str = Field(min_length=1)
    history: ChannelHistory = ChannelHistory()
    durability: Annotated[str, BeforeValidator(_durability)] = QUORUM
    window: Annotated[
        int,
        BeforeValidator(parse_duration),
        Field(ge=limits.PUBLISH_WINDOW_MS_MIN, le=limits.PUBLISH_WINDOW_MS_MAX),
    ] = limits.PUBLISH_KEYS_MS
    payload: Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, le=limits.MESSAGE_BYTES_MAX)] = (
        limits.MESSAGE_BYTES_MAX
    )


class Limits(Section):
    retained: Bytes = Field(
        default=limits.NODE_RETAINED_BYTES_DEFAULT, gt=0, description="memory for all channels' history on a node"
    )
    disk_reserve: Bytes = Field(
        default=limits.DISK_RESERVE_BYTES, description="free disk space below which publishes are refused"
    )
    sessions: int = Field(default=limits.SESSIONS_MAX, ge=1, description="client connections of a node")
    connections_per_address: int = Field(default=0, ge=0, description="... of them from one address; 0: no limit")
    failed_logins: int = Field(
        default=limits.FAILED_LOGINS_MAX, ge=0, description="wrong passwords of one address in a minute; 0: no limit"
    )
    commands_per_second: int = Field(default=0, ge=0, description="of a connection, which is then read slower; 0: any")
    bytes_per_second: Bytes = Field(default=0, description="of commands of a connection, likewise; 0: any number")
    user_commands_per_second: int = Field(default=0, ge=0, description="of all connections of a user on this node")
    user_bytes_per_second: Bytes = Field(default=0, description="of all connections of a user on this node")
    snapshot_log: Bytes = Field(
        default=limits.LOG_TRAILING_BYTES, gt=0, description="log of a shard after which a snapshot of it is written"
    )
    snapshot_age: Milliseconds = Field(
        default=int(limits.LOG_TRAILING_S * 1000), gt=0, description="... or so long after the last, if there is news"
    )


class Durable(Section):
    """Subscribers whose client name begins with `durable:` (docs/durable.md)."""

    keep: Milliseconds = Field(
        default=limits.DURABLE_KEEP_MS_DEFAULT,
        gt=0,
        description="how long a subscriber with a durable: name is remembered after it has gone",
    )
    save: Milliseconds = Field(
        default=limits.DURABLE_SAVE_MS_DEFAULT,
        gt=0,
        description="how far it has come is saved no more often than this; a node's death repeats so much to it",
    )
    gap_marker: str = Field(
        default="",
        max_length=256,
        description="how a message on its channel begins that tells it of lost history; none: on __riverbus__:gap",
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: text on a terminal, JSON elsewhere"
    )


class Config(BaseSettings):
    """Frozen. Built by `load`; directly in tests: `Config(flags={"node": {"id": 2}})`."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    node: Node = Node()
    resp: Resp = Resp()
    http: Http = Http()
    admin: Admin = Admin()
    peer: Peer = Peer()
    history: History = History()
    limits: Limits = Limits()
    tls: ClientTls = ClientTls()
    durable: Durable = Durable()
    log: Log = Log()
    channel: tuple[Channel, ...] = ()
    user: tuple[User, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Each layer is a tree of sections given as a keyword; pydantic-settings merges them by precedence."""
        assert isinstance(init_settings, InitSettingsSource)
        layers = init_settings.init_kwargs
        assert set(layers) <= set(LAYERS), f"layers are {LAYERS}"
        return tuple(InitSettingsSource(settings_cls, layers.get(layer, {})) for layer in LAYERS)

    @cached_property
    def peer_listen(self) -> Address:
        return self.peer.listen or self.node.cluster.get(self.node.id) or Address("127.0.0.1", 7380)

    @cached_property
    def members(self) -> dict[int, Address]:
        """Peer address of each node of the cluster, this one included."""
        return dict(sorted((self.node.cluster or {self.node.id: self.peer_listen}).items()))


def load(
    path: Path | None = None, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Raises ConfigError with every problem found. `flags` is a tree of sections, without what was not given."""
    layers: dict[str, Any] = {
        "flags": dict(flags or {}),
        "environment": _from_environment(os.environ if environ is None else environ),
        "file": {} if path is None else _from_file(path),
    }
    try:
        config = Config(**layers)
    except ValidationError as error:
        raise ConfigError([_problem(item, layers, path) for item in error.errors(include_url=False)]) from None
    if problems := [*_contradictions(config), *_exposures(config)]:
        raise ConfigError(problems)
    return config


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """`RIVERBUS_NODE_SECRET_FILE=x` -> {"node": {"secret_file": "x"}}; `RIVERBUS_PEER_TLS_CERT` reaches one deeper."""
    tree: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        words = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        place = tree
        model: type[BaseModel] = Config
        section, _, rest = words.partition("_")
        while rest and (inner := _section_of(model, section)) is not None:
            place = place.setdefault(section, {})
            model, words = inner, rest
            section, _, rest = words.partition("_")
        place[words] = environ[variable]
    return tree


def _section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = model.model_fields.get(name)
    annotation = None if field is None else field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _problem(item: Any, layers: Mapping[str, Any], path: Path | None) -> str:
    location: tuple[str | int, ...] = item["loc"]
    layer = _layer_of(location, layers)
    if layer == "environment":
        name = ENVIRONMENT_PREFIX + "_".join(map(str, location)).upper()
    else:
        prefix = {"flags": "", "file": f"{path}: "}.get(layer, "" if path is None else f"{path}: ")
        name = prefix + ".".join(map(str, location))
        if layer == "flags" and name in FLAGS:
            name = f"{FLAGS[name]} ({name})"
    if item["type"] == "extra_forbidden":
        text = "unknown key"
        near = get_close_matches(str(location[-1]), _keys_at(location[:-1]), n=1)
        if near:
            text += f"; did you mean {'.'.join(map(str, (*location[:-1], near[0])))!r}?"
    else:
        text = str(item["msg"]).removeprefix("Value error, ")
        text = text[:1].lower() + text[1:] if item["type"] != "value_error" else text
    return f"{name}: {text}"


def _layer_of(location: tuple[str | int, ...], layers: Mapping[str, Any]) -> str:
    """Where the value came from: the first layer that has the key; "" if none has."""
    for layer in LAYERS:
        tree: Any = layers[layer]
        for part in location[:2]:
            tree = tree.get(part) if isinstance(tree, Mapping) else None
        if tree is not None:
            return layer
    return ""


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    model: Any = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = annotation if isinstance(annotation, type) else annotation.__args__[0]
    return list(model.model_fields)


def _contradictions(config: Config) -> list[str]:
    node = config.node
    problems = []
    if node.cluster and node.id not in node.cluster:
        problems.append(f"node.cluster: has no node {node.id}, which node.id says this is")
    places: dict[Address, int] = {}
    for member, place in node.cluster.items():
        if place.port and (first := places.setdefault(place, member)) != member:
            problems.append(f"node.cluster: nodes {first} and {member} have the same address, {place}")
    for name, tls in (("tls", config.tls), ("peer.tls", config.peer.tls), ("admin.tls", config.admin.tls)):
        if (tls.cert is None) != (tls.key is None):
            problems.append(f"{name}: cert and key go together")
        if tls.ca is not None and tls.cert is None:
            problems.append(f"{name}: ca needs cert and key")
    if config.peer.tls.is_on and config.peer.tls.ca is None:
        problems.append("peer.tls: needs ca, by which nodes know each other's certificates")
    names = [user.name for user in config.user]
    problems += [f"user: {name!r} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    return problems


def _exposures(config: Config) -> list[str]:
    """Promise of the house: nothing listens beyond this machine without authentication."""
    problems = []
    if not config.resp.listen.is_loopback and not config.tls.asks_for_certificates:
        fix = 'or ask clients for certificates (tls.ca, client_certificates = "required")'
        reached = f"resp.listen: {config.resp.listen} can be reached from a network"
        if not config.user:
            problems.append(f"{reached}: add a [[user]] with a password, {fix}")
        problems += [
            f"{reached}, and user {user.name!r} needs no password: give it one, {fix}"
            for user in config.user
            if user.is_nopass and user.enabled
        ]
    if not config.admin.listen.is_loopback and config.admin.token is None:
        problems.append(f"admin.listen: {config.admin.listen} can be reached from a network: set admin.token")
    if not config.peer_listen.is_loopback and config.node.secret_file is None:
        problems.append(
            f"peer.listen: {config.peer_listen} can be reached from a network: set node.secret_file (--secret-file)"
        )
    return problems
