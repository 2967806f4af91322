"""Processes of this project on one machine: children, the parent, locks, listening sockets, the event loop."""
