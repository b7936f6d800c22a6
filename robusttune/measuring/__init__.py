"""Measuring robustness: evaluate, its Records, their comparison and reports, and the Monitor of a model in service."""
