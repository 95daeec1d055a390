"""Computed and predicted costs of systems and trainings: parameters, KV cache, FLOPs, latency, memory.

Imports no torch, so that answers are fast on any machine.  `varient.profiling` measures the same quantities.
"""
