"""Running CPU-bound handlers in processes of their own, which a timeout or a cancellation kills."""
