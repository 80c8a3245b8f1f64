"""`dsel show RUN`: one page to look at what a run has chosen, and at what it has not."""
