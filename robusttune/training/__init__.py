"""Adversarial training: the public functions, the set-up of a run, its loop, one step, and their cost."""
