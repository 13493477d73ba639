"""Data sets as TFDS shards: written by one module, read by another."""
