"""A steady load for a while, and whether any process grows: ``python -m benchmarks.soak``."""
