"""Training of the networks: losses, synthetic pairs in, weights out. `bench/train.py` runs it."""
