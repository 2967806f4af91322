"""A JetStream client and the embedded server. Nothing here knows jobs."""
