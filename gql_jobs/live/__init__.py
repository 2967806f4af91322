"""The stream applied to the index as it grows, and its events published to subscribers."""
