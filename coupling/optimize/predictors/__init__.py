"""What predictors the search between solves: predictions of all responses, cheap to evaluate, each in its own file."""
