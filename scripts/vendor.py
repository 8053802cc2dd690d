#!/usr/bin/env python3
"""Prepare and maintain the patched llama.cpp: a pinned archive, own files laid over it, a series of patches.

Only the standard library and git are needed. Results go to stdout, talk and errors to stderr; see `--help`.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("error: scripts/vendor.py needs Python 3.10 or newer")

from vendoring.cli import main

if __name__ == "__main__":
    sys.exit(main())
