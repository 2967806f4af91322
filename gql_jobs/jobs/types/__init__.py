"""The job types that come with gql-jobs: one contract module each, and what their results have in common."""

from urllib.parse import quote


def artifact_url(job_id: str, name: str) -> str:
    """Return the path, below the API's address, at which clients find an artifact of a job.

    Here because results of these types hold it: whoever makes them, in a worker, must not need the API for that.
    """
    return f"/artifacts/{job_id}/{quote(name)}"
