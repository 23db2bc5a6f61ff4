"""Samples from memory to disk: one sealed HDF5 file, journals beside it, and merging."""
