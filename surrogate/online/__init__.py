"""Training while samples arrive: a reservoir, its networks, checkpoints, and which samples to compute next."""
