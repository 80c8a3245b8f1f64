"""Where a run is mirrored to while it goes."""
