"""Measurement of latency and memory."""
