"""Models by name, from anybody's code; their derivatives verified; models made of models."""
