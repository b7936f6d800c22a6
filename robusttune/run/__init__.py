"""Parts of a run that know nothing of training: settings, processes, random states, files, folder, log, provenance."""
