"""Races: optimizers on one surface, from contours to a page that runs by itself."""
