"""Measuring robustness: evaluate and its Records, comparisons, reports, and the Monitor of a model in service."""
