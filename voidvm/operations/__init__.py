"""Runs long work, and says how far it is."""
