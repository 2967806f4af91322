"""Hostile clients: what one of them costs all others, for every kind of input that a client chooses."""
