"""The user's model: borrowed and restored, probed for its classifier and features, and run faster."""
