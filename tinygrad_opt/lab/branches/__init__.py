"""Runs that fork, go back, or end badly."""
