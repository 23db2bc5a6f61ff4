"""Ready problems with learned laws in them, beside those of `sobofem.fem.library`."""
