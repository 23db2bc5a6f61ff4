"""`fit`: families compared by cross-validation, labels doubted, the best ones stacked."""
