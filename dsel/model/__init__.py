"""The models to finetune: how each is loaded and how it is spoken to."""
