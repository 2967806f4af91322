"""Job types for worker processes only: their handlers log a line and raise. Not to be imported by a test."""

from gql_jobs import JobContext, Model, job_type


async def break_here(context: JobContext, _: Model) -> Model:
    """Log and raise on the event loop, or in a process."""
    return break_in_thread(context, _)


def break_in_thread(context: JobContext, _: Model) -> Model:
    """Log and raise in a thread."""
    context.log.warning("a line\nof the handler", extra={"page": 3})
    raise RuntimeError("Nobody expected this.")


for name, function, cpu_bound in (
    ("breaking", "break_here", False),
    ("breaking_thread", "break_in_thread", False),
    ("breaking_cpu", "break_here", True),
):
    handler = f"tests.workers.breaking_jobs:{function}"
    job_type(name, payload=Model, result=Model, handler=handler, cpu_bound=cpu_bound)
