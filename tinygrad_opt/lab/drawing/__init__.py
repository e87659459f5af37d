"""Drawings of a computation: the graph of a Tensor, laid out in plain Python."""
