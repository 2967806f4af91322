"""The codec hook: payloads, results and checkpoints pass through an object of yours before they reach NATS.

API and worker processes hold its keys; NATS and the index hold what it has made of the JSON: a text of base64, beside a
mark that says so. What was stored before a codec was set is read as it is.
"""

import base64
import binascii
import hmac
import importlib
import traceback
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from gql_jobs.jobs.model import Job, Spec

CODEC_ENTRY_POINTS = "gql_jobs.codecs"
"""The group of entry points that name codecs."""


class StoredPart(StrEnum):
    """Which part of a job is encoded."""

    PAYLOAD = "payload"
    RESULT = "result"
    CHECKPOINT = "checkpoint"


class CodecContext(Struct, frozen=True):
    """What a codec is told of the bytes: the job's id, its type, its tenant or None, and which part of it they are.

    All of it is the same when they are decoded, so that it can be authenticated with them.
    """

    job_id: str
    type: str
    tenant: str | None
    kind: StoredPart


@runtime_checkable
class PayloadCodec(Protocol):
    """An object that the setting ``GQL_JOBS_CODEC`` names. It is called from several threads, and never for long."""

    def encode(self, data: bytes, context: CodecContext) -> bytes:
        """Return what is stored of JSON."""

    def decode(self, data: bytes, context: CodecContext) -> bytes:
        """Return the JSON that ``encode`` was given, also where an older key has encoded it."""


class CodecFailure(Exception):
    """The codec has raised, or returned no bytes; or there is none for what is encoded. The text is for the log."""


class HashKey(Struct, frozen=True):
    """The key that all API processes hash confidential payloads with; its id stands in the hashes."""

    id: str
    secret: bytes

    def sealed(self, digest: str) -> str:
        """Return a digest as it is stored: who reads it cannot try out payloads, which may be short."""
        return f"{_HMAC}{self.id}:{hmac.digest(self.secret, digest.encode(), 'sha256').hex()}"

    def __repr__(self) -> str:
        return f"<HashKey {self.id}>"


_HMAC = "hmac:"


class StoredPayloads:
    """What is stored of jobs, encoded by a codec or as it is, and the hashes that tell repeated requests.

    :param codec: None where none is set.
    """

    def __init__(self, codec: PayloadCodec | None = None) -> None:
        self._codec = codec
        self.encodes = codec is not None
        """Whether what is stored from now on is encoded."""
        self.hash_key: HashKey | None = None
        """Set once it is known; without it hashes are stored as they are."""

    def sealed(self, job_id: str, spec: Spec) -> Spec:
        """Return the spec of a confidential payload as it is stored: encoded, with hashes that tell nothing of it.

        :raises CodecFailure: if the codec fails.
        """
        if self.hash_key is not None:
            of_request = spec.request_hash and self.hash_key.sealed(spec.request_hash)
            spec = replace(spec, payload_hash=self.hash_key.sealed(spec.payload_hash), request_hash=of_request)
        if self._codec is None:
            return spec
        made = self.encode(job_id, spec, StoredPart.PAYLOAD, bytes(spec.payload))
        return replace(spec, payload=Raw(made), encoded=True)

    def comparable(self, job_id: str, spec: Spec) -> Spec:
        """Return a stored spec with its payload as JSON, where it can be decoded here."""
        try:
            return replace(spec, payload=self.payload(job_id, spec), encoded=False) if spec.encoded else spec
        except CodecFailure:
            return spec

    def alike(self, digest: str, stored: str) -> str | None:
        """Return a digest in the form that a stored hash has; None if that is made with a key that is not known."""
        if not stored.startswith(_HMAC):
            return digest
        key = self.hash_key
        return key.sealed(digest) if key is not None and stored.startswith(f"{_HMAC}{key.id}:") else None

    def encode(self, job_id: str, spec: Spec, part: StoredPart, plain: bytes) -> bytes:
        """Return JSON as it is stored: as it is, or as a text of what the codec has made of it.

        :raises CodecFailure: if the codec fails.
        """
        if self._codec is None:
            return plain
        try:
            made = self._codec.encode(plain, CodecContext(job_id, spec.type, spec.tenant, part))
        except Exception as error:  # noqa: BLE001  # it is code of users, and its errors may quote what it was given
            raise CodecFailure(f"The codec failed to encode a {part} with {_where(error)}.") from None
        if not isinstance(made, bytes):
            raise CodecFailure(f"The codec returned no bytes for a {part}, but {type(made).__name__}.")
        return b'"' + base64.b64encode(made) + b'"'

    def payload(self, job_id: str, spec: Spec) -> Raw:
        """Return the JSON of a job's payload.

        :raises CodecFailure: if it is encoded and cannot be decoded here.
        """
        if not spec.encoded:
            return spec.payload
        return Raw(self.decode(job_id, spec, StoredPart.PAYLOAD, spec.payload))

    def result(self, job: Job) -> Raw | None:
        """Return the JSON of a job's result; None if it has none.

        :raises CodecFailure: if it is encoded and cannot be decoded here.
        """
        stored = job.result
        if stored is None or not job.result_encoded:
            return stored
        return Raw(self.decode(job.id, job.spec, StoredPart.RESULT, stored))

    def decode(self, job_id: str, spec: Spec, part: StoredPart, stored: Raw | bytes) -> bytes:
        """Return the JSON of what was stored encoded.

        :raises CodecFailure: if it cannot be decoded here.
        """
        if self._codec is None:
            raise CodecFailure(f"The {part} is encoded, and no codec is set here (GQL_JOBS_CODEC).")
        try:
            made = base64.b64decode(msgspec.json.decode(stored, type=str), validate=True)
        except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError) as error:
            raise CodecFailure(f"The {part} is marked as encoded, but is no text of base64.") from error
        try:
            plain = self._codec.decode(made, CodecContext(job_id, spec.type, spec.tenant, part))
        except Exception as error:  # noqa: BLE001
            raise CodecFailure(f"The codec failed to decode a {part} with {_where(error)}.") from None
        if not isinstance(plain, bytes):
            raise CodecFailure(f"The codec returned no bytes for a {part}, but {type(plain).__name__}.")
        return plain


def _where(error: Exception) -> str:
    """Return the type of an exception and the line that raised it, without its text."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in line {last.lineno} of {last.filename}"


def load_codec(name: str | None) -> StoredPayloads:
    """Return how payloads are stored with the codec of this name: ``module:object``, or that of an entry point.

    :param name: None for no codec.
    :raises ImportError: if there is no such codec, or its module cannot be imported.
    :raises ValueError: if the object has no ``encode`` and ``decode``.
    """
    if name is None:
        return StoredPayloads()
    if ":" in name:
        module, _, place = name.partition(":")
        found: object = importlib.import_module(module)
        for part in place.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise ImportError(f"GQL_JOBS_CODEC={name}: {module} has no {place}.") from None
    else:
        entries = entry_points(group=CODEC_ENTRY_POINTS, name=name)
        if not entries:
            raise ImportError(f"GQL_JOBS_CODEC={name}: write module:object, or the name of an installed codec.")
        found = next(iter(entries)).load()
    if isinstance(found, type) or not isinstance(found, PayloadCodec):
        raise ValueError(  # noqa: TRY004  # as all that is wrong with a setting
            f"GQL_JOBS_CODEC={name} is no object with the methods encode and decode."
        )
    return StoredPayloads(found)
