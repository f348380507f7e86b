"""The parts of the configuration that say who may come in: users, and certificates. config.py has the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from riverbus.runtime.passwords import Slow, read_slow

_DIGEST = re.compile("[0-9a-fA-F]{64}")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tls(Section):
    cert: Path | None = Field(default=None, description="PEM file with the certificate chain; TLS is on when it is set")
    key: Path | None = Field(default=None, description="PEM file with the certificate's private key")
    ca: Path | None = Field(
        default=None, description="PEM file with the authorities that the other side's certificate must come from"
    )

    @property
    def is_on(self) -> bool:
        return self.cert is not None


class ClientTls(Tls):
    client_certificates: Literal["required", "optional"] = Field(
        default="required", description='with ca: "required", or "optional" to let clients in without one, too'
    )

    @property
    def asks_for_certificates(self) -> bool:
        """No client comes in without a certificate."""
        return self.ca is not None and self.client_certificates == "required"


class User(Section):
    """Passwords as themselves, as "sha256:" and hex digits, or (one) as `riverbus config password` prints it."""

    name: str = Field(default="default", min_length=1)
    password: SecretStr | None = Field(default=None, min_length=1)
    passwords: tuple[SecretStr, ...] = Field(default=(), description="more than one, while they are being changed")
    rules: str = Field(default="~* &* +@all", description="Redis ACL rules: what the user may do")
    enabled: bool = True

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        words = self.rules.split()
        if any(word[:1] in (">", "<", "#", "!") for word in words):
            raise ValueError("a password belongs into password or passwords, not into rules")
        if {word.lower() for word in words} & {"on", "off", "reset", "resetpass"}:
            raise ValueError("on, off, reset and resetpass have no place in rules: see enabled and password")
        if not self._texts() and not self.is_nopass and self.enabled:
            raise ValueError("give a password, or the rule nopass if nobody is to be asked for one")
        if self._texts() and self.is_nopass:
            raise ValueError("a password and the rule nopass exclude each other")
        for text in self._texts():
            if text.startswith("sha256:") and not _DIGEST.fullmatch(text.removeprefix("sha256:")):
                raise ValueError("after sha256: come 64 hex digits")
        if len([text for text in self._texts() if text.startswith("scrypt:")]) > 1:
            raise ValueError("a user can have one scrypt: password")
        self.slow()
        return self

    @property
    def is_nopass(self) -> bool:
        return "nopass" in self.rules.lower().split()

    def _texts(self) -> list[str]:
        given = [*self.passwords] if self.password is None else [self.password, *self.passwords]
        return [each.get_secret_value() for each in given]

    def plain(self) -> list[str]:
        """Passwords that are written as themselves."""
        return [text for text in self._texts() if not text.startswith(("sha256:", "scrypt:"))]

    def digests(self) -> list[str]:
        """Of those that are written as their SHA-256."""
        return [text.removeprefix("sha256:").lower() for text in self._texts() if text.startswith("sha256:")]

    def slow(self) -> Slow | None:
        """Raises ValueError."""
        return next((read_slow(text) for text in self._texts() if text.startswith("scrypt:")), None)
