"""The job type `email`: one plain-text message over SMTP."""

from pydantic import EmailStr, Field

from gql_jobs.jobs.registry import Model, job_type


class EmailPayload(Model):
    """An e-mail to send."""

    to: EmailStr = Field(description="The recipient's address.", max_length=320)
    subject: str = Field(description="The subject line; one line.", max_length=998, pattern=r"^[^\r\n\x00]*$")
    body: str = Field(description="The text, plain.")


class EmailResult(Model):
    """What the SMTP server accepted."""

    message_id: str = Field(description="The Message-ID the mail was sent with; it derives from the job id.")


job_type(
    "email",
    payload=EmailPayload,
    result=EmailResult,
    handler="gql_jobs_worker.handlers.email:send_email",
    description="Sends one e-mail over SMTP.",
)
