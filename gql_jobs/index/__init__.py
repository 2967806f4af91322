"""The index: jobs and events in one SQLite file of each API process. Knows messages and folds, never NATS."""
