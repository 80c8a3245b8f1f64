"""dsel: choose the examples to finetune a language model on, and measure whether the choosing helped."""

__version__ = "0.1.0"
