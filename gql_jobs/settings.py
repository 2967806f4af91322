"""The settings: a frozen object that each command reads once from the environment (prefix ``GQL_JOBS_``).

How a value is given, by a variable, in a file ``.env`` or by a file of its own, is ``gql_jobs/environment.py``'s.
"""

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from gql_jobs.environment import (
    ENV_FILE,
    MAX_SHOWN_LENGTH,
    PREFIX,
    is_from_file,
    unknown_settings,
    values_of_files,
    variables_and_file,
)

API: JsonDict = {"read_by": "api"}
WORKER: JsonDict = {"read_by": "worker"}
NATS: JsonDict = {"read_by": "nats"}
API_WORKER: JsonDict = {"read_by": "api, worker"}
NATS_API_WORKER: JsonDict = {"read_by": "nats, api, worker"}
OUTBOX: JsonDict = {"read_by": "outbox"}
API_OUTBOX: JsonDict = {"read_by": "api, outbox"}
API_WORKER_OUTBOX: JsonDict = {"read_by": "api, worker, outbox"}
ALL: JsonDict = {"read_by": "nats, api, worker, mailbox, outbox"}
"""Which processes read a setting, for its documentation; ``dev`` starts all of them with one environment."""

_DAY = 86_400
_LONGEST = 366 * _DAY
"""Seconds that a duration may have, where it has no limit of its own."""
_MOST = 1_000_000_000
"""How large a count may be, where it has no limit of its own."""
_MOST_BYTES = 1 << 60
"""Bytes that a size may have: what servers and SQLite store has 64 bits."""


@dataclass(frozen=True)
class NatsServer:
    """A server to connect to. With ``user`` and without ``password`` the user is a token."""

    url: str
    """Without the credentials, so that it may be shown."""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def nats_servers(text: str) -> tuple[NatsServer, ...]:
    """Return the servers of a list of URLs, with credentials decoded; only a comma in one must be written ``%2C``.

    :raises ValueError: if one is no NATS URL; the message shows nothing of it.
    """
    return tuple(_nats_server(part.strip()) for part in text.split(","))


def _nats_server(text: str) -> NatsServer:
    # Split at the last @ and not as a URL, because passwords are often pasted as they are, with #, / or @ in them.
    scheme, _, rest = text.partition("://")
    credentials, _, address = rest.rpartition("@")
    url = f"{scheme}://{address}"
    try:
        parts = urlsplit(url)
        known = scheme in {"nats", "tls", "ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or re.search(r"[\s\x00-\x1f\x7f]", address):
        raise ValueError("it must be a NATS URL such as nats://127.0.0.1:4222, with %2C for a comma in a password")
    user, colon, password = credentials.partition(":")
    return NatsServer(url, unquote(user) or None, unquote(password) if colon else None)


class _Files(PydanticBaseSettingsSource):
    """The values of settings that are in files of their own."""

    def __init__(self, settings: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings)
        names = [name.upper() for name in settings.model_fields]
        self._values = values_of_files(names, variables)[0]

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {name.lower(): value for name, value in self._values.items()}


class Settings(BaseSettings):
    """All settings. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _are_settings(cls, given: Any) -> Any:
        names = [name.upper() for name in cls.model_fields]
        problems = unknown_settings(names)
        for variables in variables_and_file():
            problems += values_of_files(names, variables)[1]
        if problems:
            raise ValueError(" ".join(problems))
        return given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - a folder of secrets, which is not used
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, those that count most at first: files stand beside what names them."""
        environment, below = (_Files(settings_cls, variables) for variables in variables_and_file())
        return init_settings, env_settings, environment, dotenv_settings, below

    nats_url: str | None = Field(
        None,
        repr=False,
        description="NATS server, or several, separated by commas. Without it `dev` starts the embedded one, and "
        "`api` and `worker` look for the one that runs in the data folder, or else for `nats://127.0.0.1:4222`.",
        json_schema_extra=API_WORKER,
    )

    @field_validator("nats_url")
    @classmethod
    def _is_url(cls, text: str | None) -> str | None:
        if text is not None:
            nats_servers(text)
        return text

    nats_user: str | None = Field(
        None,
        description="User name at the NATS server; of the embedded one `gql-jobs`, where it is not set.",
        json_schema_extra=NATS_API_WORKER,
    )
    nats_password: SecretStr | None = Field(
        None,
        description="Password at the NATS server. Without it the embedded one makes a password of its own, which its "
        "owner finds in `<data_dir>/nats/url`.",
        json_schema_extra=NATS_API_WORKER,
    )
    nats_creds: FilePath | None = Field(
        None, description="Credentials file for the NATS server.", json_schema_extra=API_WORKER
    )
    nats_ca: FilePath | None = Field(
        None,
        description="Certificates (PEM) of the authority that has signed the NATS server's, for URLs `tls://…`. "
        "Without it, those that this machine trusts.",
        json_schema_extra=API_WORKER,
    )
    nats_cert: FilePath | None = Field(
        None,
        description="Certificate (PEM) that is shown to a NATS server that asks for one.",
        json_schema_extra=API_WORKER,
    )
    nats_key: FilePath | None = Field(None, description="Its private key (PEM).", json_schema_extra=API_WORKER)
    nats_inbox: str = Field(
        "_INBOX",
        max_length=100,
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
        description="What the subjects begin with on which answers of NATS come: one of its own for each user, where "
        "the server keeps them from reading each other's.",
        json_schema_extra=API_WORKER,
    )

    @model_validator(mode="after")
    def _can_encrypt(self) -> "Settings":
        if self.nats_ca is None and self.nats_cert is None and self.nats_key is None:
            return self
        if self.nats_url is None or any(
            not server.url.startswith(("tls://", "wss://")) for server in nats_servers(self.nats_url)
        ):
            raise ValueError(
                "GQL_JOBS_NATS_CA, _CERT and _KEY are for a GQL_JOBS_NATS_URL of tls://…: to any other URL what is "
                "sent may not be encrypted."
            )
        if (self.nats_cert is None) != (self.nats_key is None):
            raise ValueError("GQL_JOBS_NATS_CERT and GQL_JOBS_NATS_KEY belong together.")
        try:
            self.nats_tls()
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            raise ValueError(
                "GQL_JOBS_NATS_CA, _CERT and _KEY must be files of PEM, the key without a passphrase and of that "
                "certificate."
            ) from None
        return self

    def nats_tls(self) -> ssl.SSLContext | None:
        """Return by what the NATS server is trusted and trusts us; None where no setting says so.

        :raises OSError: if a file is none of PEM, or cannot be read any more.
        """
        if self.nats_ca is None and self.nats_cert is None:
            return None
        context = ssl.create_default_context(cafile=self.nats_ca)
        if self.nats_cert is not None:
            # Not asked for at the terminal: the password of an encrypted key.
            context.load_cert_chain(self.nats_cert, self.nats_key, password=b"")
        return context

    auth: Literal["none", "required"] | None = Field(
        None,
        description="`required`: whoever calls the API needs a key or a token. `none`: everybody may do everything. "
        "Where it is not set that is so on loopback, and `api` does not start on any other address.",
        json_schema_extra=API,
    )
    jwks: str | None = Field(
        None,
        repr=False,
        description="The public keys of your identity provider, whose JSON Web Tokens are accepted then: an `https` "
        "URL, an `http` URL of this machine, or a file. Read anew as it changes.",
        json_schema_extra=API,
    )
    jwt_issuer: str | None = Field(
        None, min_length=1, description="What the claim `iss` of these tokens must be.", json_schema_extra=API
    )
    jwt_audience: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="What the claim `aud` must be or contain: one of these, separated by commas.",
        json_schema_extra=API,
    )
    jwt_leeway: float = Field(
        10.0,
        ge=0,
        le=300,
        description="How far the provider's clock may be off: so much longer and earlier a token counts.",
        json_schema_extra=API,
    )
    jwt_tenant_claim: str | None = Field(
        None,
        min_length=1,
        description="The claim with the tenant. Once it is set, a token without it is refused.",
        json_schema_extra=API,
    )
    jwt_ids_claim: str | None = Field(
        None,
        min_length=1,
        description="The claim with a list of ids: a token is for these jobs only, and refused without it.",
        json_schema_extra=API,
    )
    jwt_tags_claim: str | None = Field(
        None,
        min_length=1,
        description="The claim with a list of tags: a token is for jobs with one of these, and refused without it.",
        json_schema_extra=API,
    )
    jwt_types_claim: str | None = Field(
        None,
        min_length=1,
        description="The claim with a list of job types: a token is for these only, and refused without it.",
        json_schema_extra=API,
    )
    jwt_queues_claim: str | None = Field(
        None,
        min_length=1,
        description="The claim with a list of queues: a token is for these only, and refused without it.",
        json_schema_extra=API,
    )

    @field_validator("jwks")
    @classmethod
    def _is_place_of_keys(cls, place: str | None) -> str | None:
        if place is not None and "://" in place:
            parts = urlsplit(place)
            is_ours = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
            if not parts.hostname or not (parts.scheme == "https" or is_ours) or "@" in parts.netloc:
                raise ValueError(
                    "it must be an https URL without a user name, an http URL of this machine, or the path of a file"
                )
        return place

    @model_validator(mode="after")
    def _names_issuer_and_audience(self) -> "Settings":
        if self.jwks is not None and (self.jwt_issuer is None or not self.jwt_audience):
            raise ValueError(
                "GQL_JOBS_JWKS needs GQL_JOBS_JWT_ISSUER and GQL_JOBS_JWT_AUDIENCE: without them a token that was made "
                "for another service would count here."
            )
        return self

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least that is logged; INFO has a line for every step of a job.", json_schema_extra=ALL
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="`text` or `json`: a JSON object a line, with `job_id`, `attempt`, `type` and `worker` as fields.",
        json_schema_extra=ALL,
    )
    log_progress: bool = Field(
        False,
        description="Log the progress of jobs like their other steps; without it at DEBUG. `dev` does.",
        json_schema_extra=WORKER,
    )
    data_dir: Path = Field(
        Path(".gql-jobs"), description="Folder of the embedded store, the index and the mails.", json_schema_extra=ALL
    )
    replicas: int = Field(
        1, ge=1, le=5, description="Copies of the stream in a NATS cluster.", json_schema_extra=API_WORKER
    )
    sync_always: bool = Field(
        False,
        description="Embedded server: fsync before every acknowledgement (safe against power loss, slower).",
        json_schema_extra=NATS,
    )
    max_store_bytes: int = Field(
        10 << 30,
        ge=1 << 20,
        le=_MOST_BYTES,
        description="Size limit of a server's store: the embedded server gets it; of any other set what it has.",
        json_schema_extra=NATS_API_WORKER,
    )
    queue_full_ratio: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of the store limit above which createJob answers QUEUE_FULL.",
        json_schema_extra=API_WORKER,
    )
    retention: float = Field(
        7 * 86400,
        gt=0,
        le=100 * _LONGEST,
        description="How long finished jobs are kept. The relay of an outbox needs the value that the API has.",
        json_schema_extra=API_OUTBOX,
    )
    outbox_database: SecretStr | None = Field(
        None,
        description="The database whose outbox is moved, where `--database` does not say: "
        "`postgresql://user:password@host/shop`, `sqlite:////data/shop.db`.",
        json_schema_extra=OUTBOX,
    )

    api_processes: int = Field(
        1, ge=1, le=64, description="API processes that share the port. `dev` has one.", json_schema_extra=API
    )
    worker_processes: int = Field(
        1, ge=1, le=64, description="Worker processes. `dev` has one.", json_schema_extra=WORKER
    )
    num_workers: int = Field(
        3,
        ge=1,
        le=1000,
        description="Concurrency: jobs that one worker process runs at a time.",
        json_schema_extra=WORKER,
    )
    max_retries: int = Field(5, ge=0, le=100, description="Attempts after the first.", json_schema_extra=API_WORKER)
    base_retry_delay: float = Field(
        1.0,
        ge=0.01,
        le=_LONGEST,
        description="Delay before the first retry; doubles each time.",
        json_schema_extra=WORKER,
    )
    max_retry_delay: float = Field(
        60.0, ge=0.01, le=_LONGEST, description="The longest delay before a retry.", json_schema_extra=WORKER
    )
    retry_jitter: float = Field(
        0.0, ge=0, le=1, description="Share of the delay that is random.", json_schema_extra=WORKER
    )
    process_timeout: float = Field(
        300.0, ge=0.1, le=_DAY, description="How long an attempt may take.", json_schema_extra=API_WORKER
    )
    shutdown_grace: float = Field(
        30.0, ge=0, le=_LONGEST, description="How long running jobs may finish after SIGTERM.", json_schema_extra=WORKER
    )
    startup_timeout: float = Field(
        300.0,
        gt=0,
        le=_LONGEST,
        description="How long each function marked by `@worker_startup` may take (docs/handlers.md).",
        json_schema_extra=WORKER,
    )
    ack_wait: float = Field(
        30.0,
        ge=1,
        le=_DAY,
        description="The lease of a delivery; extended three times per lease.",
        json_schema_extra=API_WORKER,
    )
    unable_timeout: float = Field(
        _DAY,
        ge=1,
        le=_LONGEST,
        description="How long a job waits for a worker that can read its type and its payload; one that nobody could "
        "read for so long is a dead letter.",
        json_schema_extra=WORKER,
    )

    types: Annotated[tuple[str, ...], NoDecode] = Field(
        ("all",),
        description="Which of the bundled job types there are: `all`, `none`, or names, `email,image_processing`. The "
        "same for API and worker processes. `dev` has those whose libraries are installed, where it is not set.",
        json_schema_extra=API_WORKER_OUTBOX,
    )

    @field_validator("types")
    @classmethod
    def _selects_types(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or (len(set(names)) > 1 and {"all", "none"} & set(names)):
            raise ValueError("it is all, none, or the names of bundled job types, separated by commas")
        return names

    codec: str | None = Field(
        None,
        description="What payloads, results and checkpoints pass through before they reach NATS: module:object, or the "
        "name of an entry point (docs/encryption.md). The same for API and worker processes.",
        json_schema_extra=API_WORKER,
    )
    max_artifact_bytes: int = Field(
        1 << 30, ge=1, lt=1 << 31, description="Largest file that a handler may save.", json_schema_extra=WORKER
    )
    artifact_cache_bytes: int = Field(
        1 << 30,
        ge=0,
        le=_MOST_BYTES,
        description="How much of the jobs' files an API process keeps in its data folder.",
        json_schema_extra=API,
    )
    process_max_jobs: int = Field(
        100,
        ge=1,
        le=_MOST,
        description="CPU-bound jobs after which their process is replaced.",
        json_schema_extra=WORKER,
    )
    process_max_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        le=_MOST_BYTES,
        description="Memory above which the process of CPU-bound jobs is replaced after a job.",
        json_schema_extra=WORKER,
    )
    process_memory_limit: int | None = Field(
        None,
        ge=256 << 20,
        le=_MOST_BYTES,
        description="Address space that a CPU-bound handler may take (`RLIMIT_AS`); above it the attempt fails. "
        "Without it as much as there is.",
        json_schema_extra=WORKER,
    )
    process_environment: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Environment variables that the processes of CPU-bound handlers get beside the usual ones, "
        "separated by commas: `SHOP_DATABASE_URL,AWS_*`.",
        json_schema_extra=WORKER,
    )

    max_body_bytes: int = Field(
        8 << 20, ge=1024, le=_MOST_BYTES, description="Largest HTTP request body.", json_schema_extra=API
    )
    request_timeout: float = Field(
        30.0,
        ge=0.01,
        le=_LONGEST,
        description="How long a client may take to send the head of a request, and how long to send its body.",
        json_schema_extra=API,
    )
    max_sockets: int = Field(
        20_000,
        ge=1,
        le=_MOST,
        description="WebSockets and streams over HTTP that may be open in all.",
        json_schema_extra=API,
    )
    max_sockets_per_client: int = Field(
        500, ge=1, le=_MOST, description="WebSockets and streams that one address may hold open.", json_schema_extra=API
    )
    max_socket_operations: int = Field(
        100, ge=1, le=_MOST, description="Operations that may run on one WebSocket at a time.", json_schema_extra=API
    )
    max_socket_age: float = Field(
        86_400,
        ge=0.01,
        le=_LONGEST,
        description="How long a WebSocket or a stream may last before its client has to come back.",
        json_schema_extra=API,
    )
    socket_init_timeout: float = Field(
        10.0,
        ge=0.01,
        le=_LONGEST,
        description="How long a WebSocket may take for its `connection_init`.",
        json_schema_extra=API,
    )
    socket_idle_timeout: float = Field(
        3600.0,
        ge=0.01,
        le=_LONGEST,
        description="How long a WebSocket may be open without an operation.",
        json_schema_extra=API,
    )
    socket_ping_interval: float = Field(
        20.0,
        ge=0.01,
        le=_LONGEST,
        description="How often WebSockets are pinged; one that does not answer for as long is closed.",
        json_schema_extra=API,
    )
    write_timeout: float = Field(
        60.0,
        ge=0.01,
        le=_LONGEST,
        description="How long a client may take nothing of a response over HTTP before it is given up.",
        json_schema_extra=API,
    )
    query_timeout: float = Field(
        30.0, ge=0.01, le=_LONGEST, description="How long a query may take.", json_schema_extra=API
    )
    max_document_tokens: int = Field(
        5_000,
        ge=100,
        le=_MOST,
        description="Tokens in a GraphQL document, and comments likewise.",
        json_schema_extra=API,
    )
    max_document_length: int = Field(
        1 << 18,
        ge=1024,
        le=_MOST,
        description="Characters in a GraphQL document; large values belong into variables.",
        json_schema_extra=API,
    )
    max_operation_depth: int = Field(
        12, ge=5, le=_MOST, description="Levels of fields in an operation.", json_schema_extra=API
    )
    max_operation_root_fields: int = Field(
        20, ge=1, le=_MOST, description="Fields at the first level of an operation.", json_schema_extra=API
    )
    max_operation_aliases: int = Field(
        50, ge=0, le=_MOST, description="Aliases in an operation.", json_schema_extra=API
    )
    max_operation_directives: int = Field(
        100, ge=0, le=_MOST, description="Directives in an operation.", json_schema_extra=API
    )
    max_operation_cost: int = Field(
        50_000,
        ge=100,
        le=_MOST,
        description="Values that an operation may ask for, with the sizes of lists counted.",
        json_schema_extra=API,
    )
    max_reading_time: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Seconds of each second that new documents of one client may take to be parsed and validated; "
        "0 for any.",
        json_schema_extra=API,
    )
    max_operation_rows: int = Field(
        10_000,
        ge=100,
        le=_MOST,
        description="Items of lists (jobs, events, files, workers) that may be read for an operation while it runs.",
        json_schema_extra=API,
    )
    max_operation_bytes: int = Field(
        8 << 20,
        ge=1 << 16,
        le=_MOST_BYTES,
        description="Bytes that the result of an operation may have.",
        json_schema_extra=API,
    )
    rate_limit_operations: str | None = Field(
        None,
        description="Operations that one subject and one address may ask for: `100/second`, `5000/10 minutes`. Each "
        "process counts for itself. Without it any number.",
        json_schema_extra=API,
    )
    rate_limit_creations: str | None = Field(
        None,
        description="Jobs that they may ask to be created, each one of a `createJobs` counted; likewise.",
        json_schema_extra=API,
    )
    rate_limit_connections: str | None = Field(
        None,
        description="WebSockets and streams that one address may open; likewise.",
        json_schema_extra=API,
    )
    rate_limit_failures: str = Field(
        "100/minute",
        description="Wrong keys and tokens of one address, after which its tokens are not looked at any more but for "
        "those that were valid lately.",
        json_schema_extra=API,
    )

    @field_validator("rate_limit_operations", "rate_limit_creations", "rate_limit_connections", "rate_limit_failures")
    @classmethod
    def _is_rate(cls, rate: str | None) -> str | None:
        if rate is not None and not re.fullmatch(r"[1-9]\d{0,8}/([1-9]\d{0,4} ?)?(second|minute|hour|day)s?", rate):
            raise ValueError("a rate is a number in a time, such as 100/second or 5000/10 minutes")
        return rate

    dashboard: bool = Field(
        True,
        description="Serve the dashboard at /. The page asks the API alone, and has those who need a token sign in.",
        json_schema_extra=API,
    )
    graphiql: bool = Field(True, description="Serve GraphiQL at /graphql.", json_schema_extra=API)
    plain_fields: bool = Field(
        True,
        description="Read plain fields past GraphQL's executor: the same answers, faster. Off only to compare.",
        json_schema_extra=API,
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",),
        description="Host names that requests may be sent to, separated by commas: `jobs.example.com,*.example.org`. "
        "Health checks are answered under any, metrics too where they need a token or are asked for by an address. "
        "Where it is not set, an API on loopback and `dev` answer under the names of this machine alone.",
        json_schema_extra=API,
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins that browsers may call the API from, separated by commas: "
        "`https://app.example.com,http://localhost:*`, where `:*` is any port; `*` for all. `dev` allows those of this "
        "machine by default.",
        json_schema_extra=API,
    )

    public_url: str | None = Field(
        None,
        max_length=2000,
        description="Where clients reach the API, such as `https://jobs.example.com`: what `context.artifact_url` of "
        "handlers begins with. Without it, that is a path.",
        json_schema_extra=WORKER,
    )

    metrics: bool = Field(True, description="Serve /metrics for Prometheus.", json_schema_extra=API)
    metrics_operations: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names of GraphQL operations that are timed one by one, separated by commas; all others count as "
        "`other`.",
        json_schema_extra=API,
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Serve /metrics at this port or the next free one above it; 0 takes any. Off without it. Of API "
        "processes those that share a port, with /healthz and /readyz.",
        json_schema_extra=API_WORKER_OUTBOX,
    )
    metrics_host: str = Field("127.0.0.1", description="The address of that port.", json_schema_extra=API_WORKER_OUTBOX)

    @field_validator(
        "allowed_hosts",
        "cors_origins",
        "metrics_operations",
        "process_environment",
        "jwt_audience",
        "types",
        mode="before",
    )
    @classmethod
    def _separated(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"\*|(\*\.)?[^*/\s]+", host):
                raise ValueError("a host is a name such as jobs.example.com, or *.example.com for all below it")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError("an origin is a scheme, a host and perhaps a port, such as https://app.example.com")
        return origins

    @field_validator("public_url")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url):
            raise ValueError("it must be an address such as https://jobs.example.com, without a query")
        return url and url.rstrip("/")

    smtp_host: str = Field("localhost", description="SMTP server of the e-mail handler.", json_schema_extra=WORKER)
    smtp_port: int = Field(25, ge=1, le=65535, description="Its port.", json_schema_extra=WORKER)
    smtp_tls: str = Field(
        "auto",
        pattern="^(auto|none|starttls|tls)$",
        description="auto = STARTTLS where it is offered.",
        json_schema_extra=WORKER,
    )
    smtp_username: str | None = Field(None, description="User name at the SMTP server.", json_schema_extra=WORKER)
    smtp_password: SecretStr | None = Field(None, description="Password at the SMTP server.", json_schema_extra=WORKER)
    smtp_sender: str = Field("gql-jobs@localhost", description="The From address.", json_schema_extra=WORKER)
    smtp_timeout: float = Field(
        30.0, ge=0.01, le=_DAY, description="How long one SMTP command may take.", json_schema_extra=WORKER
    )

    download_max_bytes: int = Field(
        50 << 20,
        ge=1,
        le=_MOST_BYTES,
        description="Largest picture that image_processing fetches.",
        json_schema_extra=WORKER,
    )
    download_timeout: float = Field(
        60.0,
        ge=0.01,
        le=_DAY,
        description="How long fetching it may take, redirects included.",
        json_schema_extra=WORKER,
    )
    download_max_redirects: int = Field(
        5, ge=0, le=50, description="How often a URL may lead to another one.", json_schema_extra=WORKER
    )
    download_allow_loopback: bool = Field(
        False, description="Fetch from this machine's own loopback addresses too; `dev` does.", json_schema_extra=WORKER
    )
    download_allow_private_networks: bool = Field(
        False,
        description="Fetch from private, loopback and link-local addresses too, cloud metadata among them.",
        json_schema_extra=WORKER,
    )
    image_max_pixels: int = Field(
        50_000_000,
        ge=1,
        le=_MOST,
        description="Largest picture that is decoded: width times height.",
        json_schema_extra=WORKER,
    )
    image_watermark: str = Field(
        "gql-jobs",
        max_length=100,
        pattern=r"^[^\x00-\x1f]*$",
        description="Text of the watermark, in Latin letters.",
        json_schema_extra=WORKER,
    )

    sales_source: SecretStr | None = Field(
        None,
        description="What report_generation adds up: a Parquet or CSV file, a folder or pattern of them, or a database "
        "(`sqlite:////data/shop.db`, `postgresql://user:password@host/shop`). Without it, an invented data set that "
        "is made in `<data_dir>/sales` at first use.",
        json_schema_extra=WORKER,
    )
    sales_columns: str | None = Field(
        None,
        description="Which columns it reads, where they are not called date, product, region, quantity and amount: "
        "`date=order_date,product=sku,amount=total`. Dates in CSV are written as 2024-03-31. Amounts and quantities "
        "keep four decimal places.",
        json_schema_extra=WORKER,
    )
    sales_table: str = Field(
        "sales",
        min_length=1,
        description="The table or view with the sales in a database: `sales` or `shop.sales`.",
        json_schema_extra=WORKER,
    )
    report_font: Path | None = Field(
        None,
        description="TrueType font for reports in PDF. Without it, Western European letters only.",
        json_schema_extra=WORKER,
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no log and no client may be shown: passwords, and what is secret about the URLs."""
        values = [
            secret.get_secret_value() for secret in (self.nats_password, self.smtp_password) if secret is not None
        ]
        if self.nats_url is not None:
            values += url_secrets(self.nats_url)
        for url in (self.sales_source, self.outbox_database):
            if url is not None:
                values += url_secrets(url.get_secret_value())
        return tuple(values)


def url_secrets(url: str) -> list[str]:
    """Return what is secret about a URL, or about several separated by commas: the password, else the user name.

    Read by hand: a URL whose password holds ``#`` or ``/``, or that lacks a slash, is none for a parser, and still
    holds it.
    """
    found = []
    for one in re.split(r",(?=[a-z][a-z0-9+.-]{0,30}://)", url):
        _, separator, rest = one.partition("://")
        userinfo, at, _ = (rest if separator else one).rpartition("@")
        user, colon, password = userinfo.partition(":")
        if at and (separator or colon):
            found.append(password if colon else user)
    return found


def setting_problems(error: ValidationError) -> list[str]:
    """Return what is wrong with the settings, a sentence for each; values that may be a password are not shown."""
    return [_problem(each) for each in error.errors()]


def _problem(each: Any) -> str:
    message = str(each["msg"]).removeprefix("Value error, ")
    name = str(each["loc"][0]) if each["loc"] else ""
    if name not in Settings.model_fields:
        return message
    shown = f"{PREFIX}{name.upper()}: {message}"
    if _is_secret(name) or _is_beside_a_secret(name) or is_from_file(name.upper()):
        return f"{shown}."
    value = repr(each["input"])
    return f"{shown}, not {value if len(value) <= MAX_SHOWN_LENGTH else value[:MAX_SHOWN_LENGTH] + '…'}."


def _is_secret(name: str) -> bool:
    return name in {"nats_url", "jwks"} or "SecretStr" in str(Settings.model_fields[name].annotation)


def _is_beside_a_secret(name: str) -> bool:
    """Return whether a setting stands beside a password, which may have been given in its place by mistake."""
    group, _, _ = name.partition("_")
    return any(_is_secret(other) and other.startswith(f"{group}_") for other in Settings.model_fields)
