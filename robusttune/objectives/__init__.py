"""Robust classification losses: one file each."""
