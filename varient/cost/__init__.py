"""What systems and trainings cost, by arithmetic and prediction: parameters, keys and values, FLOPs, latency, memory.

Imports no torch, so that an answer takes a moment on any machine.  What is measured is in `varient.profiling`.
"""
