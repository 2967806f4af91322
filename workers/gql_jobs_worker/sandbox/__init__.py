"""CPU-bound handlers in processes of their own, which a timeout or a cancellation kills.

``processes`` is the worker's side: it keeps the processes and answers them. ``guard`` starts such a process and kills
what is left of it, ``child`` is what runs there, ``wire`` the frames that both sides exchange.
"""
