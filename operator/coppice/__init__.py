"""Coppice gives every pull request, test run and experiment its own production-like database."""

__version__ = "0.1.0"
