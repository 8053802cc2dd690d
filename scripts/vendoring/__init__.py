"""Tools behind scripts/vendor.py.

Imports go one way: cli -> {prepare, check, export, bump, source, stats} -> {build, archive, cache} -> {layout, pin,
patchfile} -> run.
"""
