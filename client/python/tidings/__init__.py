"""Learn of signed releases by pull or by push, and verify them here.

Every `Statement` that this package returns was verified, from the anchor on. `Trust` verifies what
came by any way; a `Device` asks brokers (`poll`), is told (`watch`), and finds the release to run
(`next`). What fails raises an `Error` with its `code`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, Optional, Union

from . import _library

__all__ = ["Code", "Device", "Error", "Freshness", "Statement", "Trust", "version"]

Path = Union[str, "os.PathLike[str]"]

# The interpreter looks for Ctrl-C between two waits of so many milliseconds.
_SLICE = 250


class Code(enum.IntEnum):
    """How a call has failed; the numbers are the exit codes of `tidings`."""

    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_CURRENT = 4
    WITHDRAWN = 5
    WAITING = 6
    NO_BROKER = 7
    BAD_FILE = 8
    NOTHING = 9


class Freshness(enum.IntEnum):
    """Whether anything is held back in a channel."""

    CURRENT = 0
    BEHIND = 1
    STALE = 2
    FORKED = 3


class Error(Exception):
    """What a call could not do, and by `code` what kind of failure that is."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def version() -> str:
    """The version of the library."""
    return _library.text(_library.call("version"))


def _fail(code: int, error: ctypes.c_void_p) -> NoReturn:
    try:
        text = _library.text(_library.call("error_text", error))
    finally:
        _library.call("error_free", error)
    raise Error(Code(code), text)


def _call(name: str, *arguments: Any) -> None:
    """Calls a function that has a place for an error behind its arguments."""
    error = ctypes.c_void_p()
    code = _library.call(name, *arguments, ctypes.byref(error))
    if code:
        _fail(code, error)


def _made(name: str, *arguments: Any) -> ctypes.c_void_p:
    """Calls a function that gives an object, which is ours then."""
    made = ctypes.c_void_p()
    _call(name, *arguments, ctypes.byref(made))
    return made


@dataclasses.dataclass(frozen=True)
class Statement:
    """A verified statement: a release, or the withdrawal of one."""

    kind: str
    channel: str
    serial: int
    id: str
    time: str
    #: All octets, with the signatures.
    octets: bytes
    #: Every field in its order; one may stand there several times.
    fields: tuple[tuple[str, str], ...]

    def value(self, name: str) -> Optional[str]:
        """The first value of a field."""
        return next(iter(self.values(name)), None)

    def values(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for known, value in self.fields if known == name]

    @classmethod
    def _of(cls, handle: Any) -> Statement:
        def said(name: str, *more: Any) -> str:
            return _library.text(_library.call(f"statement_{name}", handle, *more))

        length = ctypes.c_size_t()
        octets = _library.call("statement_octets", handle, ctypes.byref(length))
        count = _library.call("statement_fields", handle)
        return cls(
            kind=said("kind"),
            channel=said("channel"),
            serial=_library.call("statement_serial", handle),
            id=said("id"),
            time=said("time"),
            octets=ctypes.string_at(octets, length.value),
            fields=tuple((said("field_name", at), said("field_value", at)) for at in range(count)),
        )

    @classmethod
    def _take(cls, handle: ctypes.c_void_p) -> Statement:
        try:
            return cls._of(handle)
        finally:
            _library.call("statement_free", handle)


class _Handle:
    """An object of the library, which ends with `close`, with `with`, or when it is forgotten."""

    _free: str

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._held: Optional[ctypes.c_void_p] = handle

    @property
    def _handle(self) -> ctypes.c_void_p:
        if self._held is None:
            raise Error(Code.USAGE, f"this {type(self).__name__} was closed")
        return self._held

    def close(self) -> None:
        """Ends it; a second time does nothing."""
        held, self._held = self._held, None
        if held is not None:
            _library.call(self._free, held)

    def __del__(self) -> None:
        if getattr(self, "_held", None) is not None:
            self.close()


class Trust(_Handle):
    """What an anchor proves: the trust in force, by which statements are verified."""

    _free = "trust_free"

    def __init__(self, anchor: str, log: bytes) -> None:
        """`log` is what `tidings trust log` writes: the trust statements from the anchor's on."""
        super().__init__(_made("trust_new", anchor.encode(), log, len(log)))

    @classmethod
    def of_state(cls, anchor: str, state: Path) -> Trust:
        """The trust in force of a device's state file."""
        trust = cls.__new__(cls)
        handle = _made("trust_of_state", anchor.encode(), os.fspath(state).encode())
        _Handle.__init__(trust, handle)
        return trust

    def verify(self, octets: bytes) -> Statement:
        """The statement, if it is proven; `Error` otherwise."""
        return Statement._take(_made("verify", self._handle, octets, len(octets)))

    def __enter__(self) -> Trust:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _options(values: Iterable[tuple[str, Optional[str]]]) -> Any:
    options = _library.call("options_new")
    try:
        for name, value in values:
            if value is not None:
                _call("options_set", options, name.encode(), value.encode())
    except Error:
        _library.call("options_free", options)
        raise
    return options


class Device(_Handle):
    """Follows some channels of one namespace. One thread at a time may use it."""

    _free = "device_free"

    def __init__(
        self,
        *,
        brokers: Iterable[str],
        anchor: str,
        channels: Iterable[str],
        state: Optional[Path] = None,
        ca: Optional[Path] = None,
        certificate: Optional[Path] = None,
        certificate_key: Optional[Path] = None,
        user: Optional[str] = None,
        password_file: Optional[Path] = None,
        properties: Optional[Mapping[str, str]] = None,
        identity: Optional[str] = None,
        oldest: bool = False,
        quorum: int = 1,
    ) -> None:
        """`state` remembers what was seen, for this program alone; without it, all of it ends with
        the object. `properties` and `identity` say what this machine is. With `oldest` an unknown
        channel begins with its first statement, not with its newest. `quorum` brokers must agree
        on the release to run."""

        def path(value: Optional[Path]) -> Optional[str]:
            return None if value is None else os.fspath(value)

        options = _options(
            [
                ("brokers", ",".join(brokers)),
                ("anchor", anchor),
                ("channels", " ".join(channels)),
                ("state", path(state)),
                ("ca", path(ca)),
                ("certificate", path(certificate)),
                ("certificate_key", path(certificate_key)),
                ("user", user),
                ("password_file", path(password_file)),
                ("identity", identity),
                ("start", "oldest" if oldest else "newest"),
                ("quorum", str(quorum)),
                *(("property", f"{key}={value}") for key, value in (properties or {}).items()),
            ]
        )
        try:
            super().__init__(_made("device_open", options))
        finally:
            _library.call("options_free", options)

    def poll(self) -> list[Statement]:
        """What is new in all channels, oldest first in each. It comes again after a restart, unless
        `delivered` was called."""
        statements = _made("device_poll", self._handle)
        try:
            count = _library.call("statements_count", statements)
            places = (_library.call("statements_at", statements, at) for at in range(count))
            return [Statement._of(place) for place in places]
        finally:
            _library.call("statements_free", statements)

    def delivered(self) -> None:
        """Notes durably that all that was returned has been dealt with."""
        _call("device_delivered", self._handle)

    def wait(self, seconds: Optional[float] = None) -> Optional[Statement]:
        """The next statement; none if none came within so many seconds. Asking for one says that
        the one before has been dealt with. After an `Error` ask again: other brokers are tried."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _SLICE
            if until is not None:
                left = min(left, max(1, int((until - time.monotonic()) * 1000)))
            try:
                return Statement._take(_made("device_watch", self._handle, left))
            except Error as error:
                if error.code is not Code.NOTHING:
                    raise
            if until is not None and time.monotonic() >= until:
                return None

    def watch(self) -> Iterator[Statement]:
        """Every statement as it comes, for ever. While no broker can be used it goes on trying;
        `wait` tells of that instead."""
        while True:
            try:
                statement = self.wait()
            except Error as error:
                if error.code is not Code.NO_BROKER:
                    raise
                continue
            if statement is not None:
                yield statement

    def next(self, channel: str) -> Statement:
        """The release to run in a channel now: brokers are asked. `Error` says why there is none:
        `Code.NOTHING`, `Code.WAITING`, `Code.WITHDRAWN`, `Code.NOT_CURRENT`…"""
        return Statement._take(_made("device_next", self._handle, channel.encode()))

    def applied(self, channel: str, serial: int) -> None:
        """Notes durably that a release runs on this machine."""
        _call("device_applied", self._handle, channel.encode(), serial)

    def freshness(self, channel: str) -> Freshness:
        """Whether anything is held back, as far as is known at this moment."""
        return Freshness(_library.call("device_freshness", self._handle, channel.encode(), None))

    def head(self, channel: str) -> int:
        """The serial of the newest statement that is known; 0 if there is none."""
        head = ctypes.c_uint32()
        _library.call("device_freshness", self._handle, channel.encode(), ctypes.byref(head))
        return head.value

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
