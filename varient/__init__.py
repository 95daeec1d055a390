"""Benchmark and reproduction harness for VARiant: progressive supernet training for visual autoregressive models."""

__version__ = "0.1.0"
