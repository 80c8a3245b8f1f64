"""From examples to quality scores: higher is better."""
