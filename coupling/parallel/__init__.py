"""MPI, all of it: worlds and groups of ranks, and how all of them end when one fails or is stopped."""
