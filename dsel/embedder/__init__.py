"""From examples to vectors."""
