"""Data for training: datasets, batches, toy problems in the plane, and real handwritten digits."""
from .dataset import Dataset, Subset, TensorDataset, random_split
from .digits import digits
from .loader import DataLoader
from .synthetic import blobs, circles, moons, spirals, xor

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "blobs", "circles", "digits", "moons",
           "random_split", "spirals", "xor"]
