"""CPU-bound handlers in processes of their own, which a timeout or a cancellation kills.

``processes`` is the worker's side: it keeps the processes and answers them. ``child`` is the process in which a handler
runs, ``wire`` the frames that both exchange over a local socket, ``scratch`` the folder that socket is in.
"""
