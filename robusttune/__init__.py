"""Makes an existing image classifier hard to fool."""

__version__ = "0.1.0"
