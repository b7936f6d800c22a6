"""Norms in which an adversary is measured: one file each."""
