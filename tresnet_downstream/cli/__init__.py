"""The commands of ``tresnet``: each module parses its arguments, calls the library and prints the result."""
