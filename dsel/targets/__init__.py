"""What the model is to be good at: examples of it, to choose others by."""
