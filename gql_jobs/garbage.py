"""The cyclic garbage collector of a process that has started and now serves.

What start-up has made (modules, models, the schema) lives as long as the process: frozen, it is not walked again and
again. What a request or a job leaves behind, cycles of GraphQL's executor for the most part, is collected in larger
portions, because looking costs more than it frees.
"""

import gc

YOUNGEST = 10_000
"""New objects after which the youngest generation is looked at; Python's own 700 is one or two requests."""


def settle() -> None:
    """Call once, when everything has been loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, *gc.get_threshold()[1:])
