"""Only the subset: `dsel select FILE --budget N`, and `dsel.select` for programs."""
