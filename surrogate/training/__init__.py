"""Descent on one network: what is minimized, by which optimizer, what is watched meanwhile."""
