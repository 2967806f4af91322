"""The job types that come with gql-jobs: one contract module each, and what their results have in common."""

from urllib.parse import quote


def artifact_url(job_id: str, name: str) -> str:
    """Return the path, below the API's address, at which clients find an artifact of a job.

    It is here, not in the API, because a worker needs it for the results of these types.
    """
    return f"/artifacts/{job_id}/{quote(name)}"
