"""The commands: each parses its arguments, calls the library and prints; the tools are a few lines onto these."""
