"""Whom the stores and indices are measured against: each in a process of its own.

The peers live in an environment of theirs (`make peers`), so this folder needs numpy and nothing
else of ours but in ours.py.
"""
