"""The addresses of workers on other machines."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["check_rpc_servers"]

_ADDRESS = re.compile(r"[^\s:,]+:([0-9]{1,5})")  # IPv4 or a name: the workers listen on no other


def check_rpc_servers(value: object) -> list[str]:
    """Addresses of workers, "host:port" each."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f'rpc_servers must be a list of "host:port", not {value!r:.60}')
    for i, address in enumerate(value):
        if not isinstance(address, str):
            raise TypeError(f'rpc_servers[{i}] must be "host:port", not {address!r:.60}')
        if not (found := _ADDRESS.fullmatch(address)) or not 0 < int(found[1]) < 65536:
            raise ValueError(f'rpc_servers[{i}] must be "host:port" with a port from 1 to 65535, not {address!r}')
    return list(value)
