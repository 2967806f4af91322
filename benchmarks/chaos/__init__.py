"""Faults on purpose, and a checker that compares the log with what clients were told."""
