"""Whom the stores and indices are measured against: each in a process of its own.

The peers live in an environment of theirs (`make peers`), so all but ours.py needs numpy and
benchmarks/common.py, nothing else.
"""
