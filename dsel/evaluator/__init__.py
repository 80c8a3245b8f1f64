"""How the trained model is measured."""
