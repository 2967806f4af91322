"""A job type for worker processes only: its plain handler never ends. Not to be imported by a test."""

import threading

from gql_jobs import JobContext, Model, job_type


def wait_for_ever(_: JobContext, __: Model) -> Model:
    """Never says anything and never looks up."""
    threading.Event().wait()
    return Model()


job_type("endless_thread", payload=Model, result=Model, handler="tests.workers.endless_jobs:wait_for_ever")
