"""How the model is finetuned on the chosen examples."""
