"""Pictures: fetched from where it is allowed, read with suspicion, changed, written without metadata."""
