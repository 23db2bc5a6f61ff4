"""What a problem refuses, with the way out, and the digest that identifies it."""
