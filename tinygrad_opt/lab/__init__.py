"""The laboratory: instruments that show what an optimizer does."""
