"""Fusion beside other methods' own outputs, on registered 8-bit slice pairs."""
