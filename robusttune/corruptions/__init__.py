"""Corruptions: `(images, severity, generator) -> images`, one file each."""
