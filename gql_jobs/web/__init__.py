"""The HTTP and WebSocket server: where the parts of an API process are put together."""
