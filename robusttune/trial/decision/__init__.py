"""The decision of a trial: significance tests of its arms, the verdict, and the page that states it."""
