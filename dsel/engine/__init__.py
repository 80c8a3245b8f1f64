"""Where the heavy work is done."""
