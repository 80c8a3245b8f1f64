"""Tables and figures of an experiment, made again from its logged runs."""
