"""A FastAPI application that has a mail sent in the background.

Beside ``gql-jobs dev``, in this folder: ``uvicorn fastapi_app:app --port 8001``.
"""

from fastapi import FastAPI
from pydantic import EmailStr

from gql_jobs.client.fastapi import JobsClient, jobs_lifespan
from gql_jobs.jobs.types.email import EmailPayload

app = FastAPI(lifespan=jobs_lifespan())


@app.post("/signups/{address}", status_code=202)
async def sign_up(address: EmailStr, jobs: JobsClient) -> dict[str, str]:
    mail = EmailPayload(to=address, subject="Welcome", body="Your table is waiting.")
    job = await jobs.create(mail, key=f"welcome-{address}")
    return {"job": job.id}


@app.get("/signups/{job_id}")
async def what_became_of_it(job_id: str, jobs: JobsClient) -> dict[str, str]:
    job = await jobs.job(job_id).state()
    return {"status": job.status}
