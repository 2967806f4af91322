"""What handlers need once for a process, not for each job: functions that run when a worker starts, and when it ends.

They are marked in the modules that handlers are in, or that those import, because nothing else is imported by workers
alone: ``worker_startup`` opens a pool or loads a model and keeps it in the ``WorkerState``, which handlers find as
``context.state``; ``worker_shutdown`` closes it. docs/handlers.md says in which processes they run, and when.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

_Function = TypeVar("_Function", bound=Callable[[Any], Awaitable[None] | None])


class WorkerState:
    """What functions marked by ``worker_startup`` have made for this process: any attributes that they set.

    A handler whose context is a ``JobContext[ShopState]`` reads them by their types, if ``ShopState`` is a Protocol
    that lists them.
    """

    def __getattr__(self, name: str) -> Any:
        """Raise the error for an attribute that nobody has set.

        :raises AttributeError: in a sentence that says so.
        """
        raise AttributeError(
            f"context.state has no {name!r}: no function marked by @worker_startup has set it in this process.",
            name=name,
            obj=self,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a value for all handlers of this process."""
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # By their names alone: a pool shows its password.
        return f"WorkerState({', '.join(vars(self))})"


class WorkerHook(NamedTuple):
    """A function that was marked; ``name`` is ``module:function``."""

    name: str
    function: Callable[[Any], Any]


class WorkerHooks:
    """The functions marked in the modules that this process has imported, in the order in which they were marked."""

    def __init__(self) -> None:
        self.startup: list[WorkerHook] = []
        self.shutdown: list[WorkerHook] = []

    def add(self, hooks: list[WorkerHook], function: _Function) -> _Function:
        """Add a function to one of the two lists and return it; one of the same name is replaced.

        :raises ValueError: if it cannot be called with a state alone, or is a generator.
        """
        name = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"
        if not callable(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(
                f"{name} is marked to run when a worker starts or ends, but is no function, or has a yield: write one "
                "function with @worker_startup and one with @worker_shutdown."
            )
        try:
            inspect.signature(function).bind(WorkerState())
        except TypeError as error:
            raise ValueError(f"{name} is called with the worker's state alone: {error}.") from error
        hook = WorkerHook(name, function)
        # A module that is imported again, as in a notebook, marks its functions again.
        if (place := next((at for at, known in enumerate(hooks) if known.name == name), None)) is not None:
            hooks[place] = hook
        else:
            hooks.append(hook)
        return function


worker_hooks = WorkerHooks()
"""What this process has imported; ``worker_startup`` and ``worker_shutdown`` add to it."""


def worker_startup(function: _Function) -> _Function:
    """Mark a function, ``async`` or not, that is called with the ``WorkerState`` before the first job.

    It runs once in each worker process that imports its module when it starts, and once in each process of CPU-bound
    handlers that does. If it raises, the worker takes no jobs and ends with an exit code other than 0, or the attempt
    that the process was to run fails and is tried again.

    :raises ValueError: if it cannot be called with a state alone, or is a generator.
    """
    return worker_hooks.add(worker_hooks.startup, function)


def worker_shutdown(function: _Function) -> _Function:
    """Mark a function, ``async`` or not, that is called with the ``WorkerState`` after the last job.

    They run in reverse order, once the last handler has ended or its job was handed back; not in a process that is
    killed. What one raises is logged.

    :raises ValueError: if it cannot be called with a state alone, or is a generator.
    """
    return worker_hooks.add(worker_hooks.shutdown, function)
