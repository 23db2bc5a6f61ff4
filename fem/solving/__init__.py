"""From parameters to the state: load steps, Newton's method, linear systems, history and stability."""
