"""Advice on the settings of `harden`, from what a model and its images are and from what was measured."""
