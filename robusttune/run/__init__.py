"""Parts of a run beside training: settings, processes, random states, files, folder, log, provenance."""
