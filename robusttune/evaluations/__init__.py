"""Evaluations: `(subject, …) -> Records`, one file each."""
