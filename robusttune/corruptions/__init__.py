"""Natural corruptions of images, one file each: a `Corruption`, `(images, severity, generator) -> images`."""

from robusttune.corruptions._corruption import FAMILIES, SEVERITIES, Corruption, Family, forked, preset_of

__all__ = ["FAMILIES", "SEVERITIES", "Corruption", "Family", "forked", "preset_of"]
