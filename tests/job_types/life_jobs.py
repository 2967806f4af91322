"""Job types whose handlers use what was made at the start of their process."""

from gql_jobs import Model, Payload, job_type


class LifeResult(Model):
    """What the handler found."""

    pid: int
    model: str
    pool_is_usable: bool


class LifePayload(Payload[LifeResult]):
    """What the handler shall do."""

    gate: str | None = None
    crash: bool = False


job_type("life", payload=LifePayload, handler="tests.job_types.life_handlers:use_state", queue="life")
job_type("life_thread", payload=LifePayload, handler="tests.job_types.life_handlers:use_state_in_thread", queue="life")
job_type(
    "life_cpu", payload=LifePayload, handler="tests.job_types.life_cpu_handlers:compute", queue="life", cpu_bound=True
)
job_type("life_late", payload=LifePayload, handler="tests.job_types.life_late_handlers:use_late", queue="life_late")
