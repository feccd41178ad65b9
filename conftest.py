"""Doctests are collected from every module but those whose optional library is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["sklearn_icon/_triton.py"]
