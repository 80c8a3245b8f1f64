"""Two subsets side by side: `python -m dsel.compare A B`."""
