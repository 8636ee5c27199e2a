"""Other loaders on the same files: float32 (N, 3, S, S) batches, cropped at random, flipped, and normalised.

Each lives in a small file whose docstring states its regime, with a function for each thing that it plays, which takes
the job and gives a function of no arguments that plays one epoch of (images, labels); `registry` has their names. Their
settings are those that their own documentation recommends. `softfeed bench DATA --peers` measures them.
"""
