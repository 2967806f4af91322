"""What the streams mean: how a job's messages are spelled, written under a fence, read back and removed in the end."""
