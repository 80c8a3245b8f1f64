"""Where pools come from: files, the hub, or a generator."""
