"""A run's folder: what is written there (`writer`, `tables`, `environment`), and how it is read (`reader`, `facts`)."""
