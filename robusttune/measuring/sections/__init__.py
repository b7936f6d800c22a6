"""Report sections: `(runs, folder) -> Markdown`, one file each."""
