"""The worker process: takes deliveries, runs handlers, records what came of them. Knows the log, never the API."""
