"""What the model in training says of its examples: S of Yu et al. 2024, Eq. 4."""
