"""Other loaders on the same files: float32 (N, 3, S, S) batches, cropped at random, flipped, and normalised.

Each lives in a small file whose docstring states its regime, and has a function `batches(job)` that makes one epoch of
(images, labels). Their settings are those that their own documentation recommends.
"""
