"""Attacks: `(loss_of, images, threat, *, generator) -> images`, one file each."""
