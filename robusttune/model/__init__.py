"""The user's model: changed and restored, probed for its classifier and features, and run faster."""
