"""From vectors to clusters."""
