"""Profiling: what a system costs in time and memory."""
