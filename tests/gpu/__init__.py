"""What a machine with a GPU is asked first: whether all of it runs there, and how fast. See `python -m tests.gpu`."""
