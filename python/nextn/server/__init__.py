"""The patched llama-server: started, proved to be ours, talked to, and stopped, with nothing left behind."""

from __future__ import annotations

from nextn.server.server import Server

__all__ = ["Server"]
