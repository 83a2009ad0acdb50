"""Measures speed and memory of networks, exported files and joint models, in comparison with other implementations."""
