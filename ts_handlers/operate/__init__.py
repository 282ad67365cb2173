"""Beside the server: write its configuration, run it, and say what the machine gives it."""
