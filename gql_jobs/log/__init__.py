"""JetStream: the only durable store, and the only package that imports its client."""
