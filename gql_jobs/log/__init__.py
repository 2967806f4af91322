"""What the streams mean: how a job's messages are encoded, written with a fence, read and removed."""
