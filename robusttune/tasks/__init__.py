"""Self-supervised pretext tasks: one file each."""
