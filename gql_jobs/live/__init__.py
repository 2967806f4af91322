"""The log as it flows: into the index, and out to whoever watches jobs."""
