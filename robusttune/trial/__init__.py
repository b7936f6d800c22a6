"""The staged trial: its plan, its arms at equal compute, its results, and the page to decide by."""
