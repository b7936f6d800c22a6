"""Runs: their settings, processes, random states, files, folder, log and provenance."""
