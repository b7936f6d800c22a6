"""The user's model: borrowed and given back, probed for its classifier and features, and run faster."""
