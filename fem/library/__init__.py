"""Ready problems, each checked against a closed form; `module:name` for the command line."""
