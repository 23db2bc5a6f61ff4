"""Several networks of one kind trained as one computation."""
