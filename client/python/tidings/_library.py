"""The functions of `libtidings`, as `tidings.h` declares them."""

from __future__ import annotations

import ctypes
import os
import pathlib
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any

NAME = "libtidings.so.0"

# Every function, what it returns, and what it takes.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "version": (c_char_p, []),
    "code_name": (c_char_p, [c_int]),
    "error_code": (c_int, [c_void_p]),
    "error_text": (c_char_p, [c_void_p]),
    "error_free": (None, [c_void_p]),
    "statement_kind": (c_char_p, [c_void_p]),
    "statement_channel": (c_char_p, [c_void_p]),
    "statement_serial": (c_uint32, [c_void_p]),
    "statement_id": (c_char_p, [c_void_p]),
    "statement_time": (c_char_p, [c_void_p]),
    "statement_octets": (c_void_p, [c_void_p, c_void_p]),
    "statement_fields": (c_size_t, [c_void_p]),
    "statement_field_name": (c_char_p, [c_void_p, c_size_t]),
    "statement_field_value": (c_char_p, [c_void_p, c_size_t]),
    "statement_value": (c_char_p, [c_void_p, c_char_p]),
    "statement_free": (None, [c_void_p]),
    "statements_count": (c_size_t, [c_void_p]),
    "statements_at": (c_void_p, [c_void_p, c_size_t]),
    "statements_free": (None, [c_void_p]),
    "trust_new": (c_int, [c_char_p, c_char_p, c_size_t, c_void_p, c_void_p]),
    "trust_of_state": (c_int, [c_char_p, c_char_p, c_void_p, c_void_p]),
    "verify": (c_int, [c_void_p, c_char_p, c_size_t, c_void_p, c_void_p]),
    "trust_free": (None, [c_void_p]),
    "options_new": (c_void_p, []),
    "options_set": (c_int, [c_void_p, c_char_p, c_char_p, c_void_p]),
    "options_free": (None, [c_void_p]),
    "device_open": (c_int, [c_void_p, c_void_p, c_void_p]),
    "device_poll": (c_int, [c_void_p, c_void_p, c_void_p]),
    "device_delivered": (c_int, [c_void_p, c_void_p]),
    "device_watch": (c_int, [c_void_p, c_uint32, c_void_p, c_void_p]),
    "device_next": (c_int, [c_void_p, c_char_p, c_void_p, c_void_p]),
    "device_applied": (c_int, [c_void_p, c_char_p, c_uint32, c_void_p]),
    "device_freshness": (c_int, [c_void_p, c_char_p, c_void_p]),
    "device_free": (None, [c_void_p]),
}


def _load() -> ctypes.CDLL:
    beside = pathlib.Path(__file__).with_name(NAME)
    found = str(beside) if beside.exists() else NAME
    library = ctypes.CDLL(os.environ.get("TIDINGS_LIBRARY") or found)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, f"tidings_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_LIBRARY = _load()


def call(name: str, *arguments: Any) -> Any:
    """What a function returns; ctypes gives the interpreter free while it runs."""
    return getattr(_LIBRARY, f"tidings_{name}")(*arguments)


def text(value: bytes | None) -> str:
    """A text of the library."""
    return (value or b"").decode()
