"""Measures speed and memory of networks, exported files and joint models, beside other implementations."""
