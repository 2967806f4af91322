"""The read side: the stream materialised into an index, and its events fanned out within the process."""
