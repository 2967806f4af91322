"""Tokens of an identity provider, and what an attacker makes of them."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gql_jobs.access import key_set
from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.errors import QueueUnavailable, Unauthenticated
from gql_jobs.jobs.viewer import Scope, ViewLimits
from gql_jobs.settings import Settings
from tests.deadline import until

ISSUER, AUDIENCE = "https://id.example.com", "jobs"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
_JWK = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "PS384": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


def jwk(key: Any, kid: str | None = "one", algorithm: str = "RS256", **more: Any) -> dict[str, Any]:
    """The public part of a key, as a provider shows it."""
    parts: dict[str, Any] = _JWK[algorithm].to_jwk(key.public_key(), as_dict=True)  # type: ignore[attr-defined]
    parts.pop("key_ops", None)
    return parts | ({} if kid is None else {"kid": kid}) | more


def claims(**changed: Any) -> dict[str, Any]:
    """What a good token says; None leaves a claim out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 60, "scope": "openid read Create"}
    return {name: value for name, value in (good | changed).items() if value is not None}


def signed(key: Any = RSA_KEY, kid: str | None = "one", algorithm: str = "RS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, {} if kid is None else {"kid": kid})


def with_claims(**changed: Any) -> str:
    return jwt.encode(claims(**changed), RSA_KEY, "RS256", {"kid": "one"})


def by_hand(header: dict[str, Any], body: Any, sign: Any = lambda _: b"") -> str:
    """A token of whatever parts."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, body)]
    signature = base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")
    return b".".join((*parts, signature)).decode()


@asynccontextmanager
async def accepting(
    settings: Settings, place: Path | str, *keys: dict[str, Any], **more: Any
) -> AsyncIterator[Authentication]:
    """An authentication that accepts tokens of the provider whose keys are at a place; a file is written first."""
    if isinstance(place, Path):
        _replace(place, *keys)
    given = {"jwks": str(place), "jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,), "auth": "required"} | more
    asked = settings.model_copy(update=given)
    async with connect(asked, "test") as connection, open_authentication(connection, asked) as access:
        yield access


async def refused(access: Authentication, token: str) -> bool:
    """Whether a token is refused, without a word on why."""
    try:
        await access.viewer_of(token)
    except Unauthenticated as error:
        return error.message == Unauthenticated().message
    return False


async def test_a_token_of_each_algorithm_says_who_comes_and_what_they_may(settings: Settings, tmp_path: Path) -> None:
    keys = [
        jwk(RSA_KEY, "rsa"),
        jwk(EC_KEY, "ec", "ES256", alg="ES256"),
        jwk(ED_KEY, "ed", "EdDSA", use="sig"),
    ]
    tokens = (
        signed(RSA_KEY, "rsa"),
        signed(RSA_KEY, "rsa", "PS384"),
        signed(EC_KEY, "ec", "ES256"),
        signed(ED_KEY, "ed", "EdDSA"),
    )
    async with accepting(settings, tmp_path / "jwks.json", *keys) as access:
        for token in tokens:
            viewer = await access.viewer_of(token)
            assert (viewer.subject, viewer.tenant, viewer.actor) == ("ada", None, "ada")
            assert viewer.scopes == {Scope.READ, Scope.CREATE}
            assert viewer.limits == ViewLimits()
            assert await access.viewer_of(token) is viewer, "verified once"


async def test_a_forged_token_is_refused(settings: Settings, tmp_path: Path) -> None:
    public = RSA_KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    good = signed()
    head, body, signature = good.split(".")
    wider = base64.urlsafe_b64encode(json.dumps(claims(scope="operate")).encode()).rstrip(b"=").decode()

    def hs256(secret: bytes) -> Any:
        return lambda text: hmac.digest(secret, text, hashlib.sha256)

    forged = {
        "another key": signed(OTHER_RSA_KEY),
        "no signature": f"{head}.{body}.",
        "other claims": f"{head}.{wider}.{signature}",
        "another spelling": good + "=",
        "a star within": f"{head}.{body}.{signature[:9]}*{signature[9:]}",
        "half of one": good[: len(good) // 2],
        "none": by_hand({"alg": "none", "kid": "one"}, claims()),
        "None": by_hand({"alg": "None", "kid": "one"}, claims()),
        "nOnE, no kid": by_hand({"alg": "nOnE"}, claims()),
        "no algorithm": by_hand({"kid": "one"}, claims()),
        "a list as algorithm": by_hand({"alg": ["RS256"], "kid": "one"}, claims()),
        "the public key as secret, PEM": by_hand({"alg": "HS256", "kid": "one"}, claims(), hs256(pem)),
        "the public key as secret, DER": by_hand({"alg": "HS256", "kid": "one"}, claims(), hs256(der)),
        "the modulus as secret": by_hand({"alg": "HS256", "kid": "one"}, claims(), hs256(jwk(RSA_KEY)["n"].encode())),
        "no secret": by_hand({"alg": "HS256", "kid": "one"}, claims(), hs256(b"")),
        "a key within the token": by_hand({"alg": "RS256", "jwk": jwk(OTHER_RSA_KEY), "kid": "none"}, claims()),
        "its own set": by_hand({"alg": "RS256", "jku": "http://127.0.0.1:1/", "kid": "evil"}, claims()),
        "a file as key": by_hand({"alg": "HS256", "kid": "../../../../dev/null"}, claims(), hs256(b"")),
        "a number as key": by_hand({"alg": "RS256", "kid": 1}, claims()),
        "no claims": by_hand({"alg": "RS256", "kid": "one"}, ["read"]),
        "deep": by_hand({"alg": "RS256", "kid": "one"}, 1)[:40] + "." + "W1tb" * 3000 + ".c2ln",
        "empty": "",
        "dots": "..",
        "words": "Bearer of news",
        "other letters": "ключ",
        "long": "a" * 100_000,
    }
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY)) as access:
        for name, token in forged.items():
            assert await refused(access, token), name
        assert (await access.viewer_of(good)).subject == "ada"


_NOT_FOR_US: dict[str, list[Any]] = {
    "aud": ["another", ["another", "third"], [], None, 1, {"jobs": 1}],
    "iss": ["https://id.example.org", ISSUER + "/", None, [ISSUER]],
    "exp": [None, 1, "soon", 1e300, -1, [], True],
    "sub": [None, "", "key:shop", "a\nb", "x" * 300, 7, ["ada"]],
    "scope": [7, {"read": True}, True],
}


async def test_a_token_that_is_not_for_us_or_not_for_now_is_refused(settings: Settings, tmp_path: Path) -> None:
    now = int(time.time())
    wrong: list[dict[str, Any]] = [{claim: value} for claim, values in _NOT_FOR_US.items() for value in values]
    wrong += [{"exp": now - 11}, {"nbf": now + 600}, {"iat": now + 600}, {"nbf": "soon"}]
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY)) as access:
        for changed in wrong:
            token = by_hand({"alg": "RS256", "kid": "one"}, claims(**changed), _rs256)
            assert await refused(access, token), changed
        assert not await refused(access, by_hand({"alg": "RS256", "kid": "one"}, claims(), _rs256))


def _rs256(text: bytes) -> bytes:
    algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    return algorithm.sign(text, RSA_KEY)


async def test_the_leeway_counts_at_both_ends_and_no_further(settings: Settings, tmp_path: Path) -> None:
    now = int(time.time())
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY), jwt_leeway=100.0) as access:
        viewer = await access.viewer_of(signed(exp=now - 50))
        assert viewer.expires_at is not None
        assert viewer.expires_at.timestamp() == now + 50, "until then it is accepted"
        assert not await refused(access, signed(nbf=now + 50, iat=now + 50))
        assert await refused(access, signed(exp=now - 101))
        assert await refused(access, signed(nbf=now + 200))


async def test_a_known_token_ends_at_its_time(settings: Settings, tmp_path: Path) -> None:
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY), jwt_leeway=0.0) as access:
        token = signed(exp=int(time.time()) + 2)
        assert not await refused(access, token)
        await until(lambda: refused(access, token), "it has ended", within=3)


async def test_a_claim_that_is_configured_must_be_there_and_of_its_shape(settings: Settings, tmp_path: Path) -> None:
    names = {
        "jwt_tenant_claim": "https://example.com/tenant",
        "jwt_ids_claim": "ids",
        "jwt_tags_claim": "tags",
        "jwt_types_claim": "types",
        "jwt_queues_claim": "queues",
    }
    many = [str(number) for number in range(1001)]
    wrongs: list[Any] = [None, 1, {}, [1], [None], "", " ", [""], "x" * 201, "a\x00b", ["a\x00b"], ["x" * 201], many]
    lists = {"ids": ["a"], "tags": ["b", "c"], "types": [], "queues": ["default"]}
    good: dict[str, Any] = lists | {"https://example.com/tenant": "acme"}
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY), **names) as access:
        viewer = await access.viewer_of(with_claims(**good))
        assert viewer.tenant == "acme"
        assert viewer.limits == ViewLimits(**{kind: frozenset(names) for kind, names in lists.items()})
        for claim in good:
            for wrong in wrongs:
                assert await refused(access, with_claims(**good | {claim: wrong})), (claim, wrong)


async def test_a_token_without_the_claim_scope_may_nothing(settings: Settings, tmp_path: Path) -> None:
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY)) as access:
        assert (await access.viewer_of(signed(scope=None))).scopes == frozenset()
        assert (await access.viewer_of(signed(scope="reader all *"))).scopes == frozenset()
        assert (await access.viewer_of(signed(scope=["READ", 7, "x"]))).scopes == {Scope.READ}


async def test_keys_that_cannot_be_trusted_are_left_out_of_a_set(settings: Settings, tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    secret = {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"s" * 32).decode()}
    for_encryption = jwk(OTHER_RSA_KEY, "enc", use="enc")
    for_another = jwk(OTHER_RSA_KEY, "rs512", alg="RS512")
    broken = [{"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}, {"kty": 7}, "key", None]
    keys: Any = (jwk(RSA_KEY), jwk(weak, "weak"), secret, for_encryption, for_another, *broken)
    hs256 = by_hand(
        {"alg": "HS256", "kid": "secret"}, claims(), lambda text: hmac.digest(b"s" * 32, text, hashlib.sha256)
    )
    async with accepting(settings, tmp_path / "jwks.json", *keys) as access:
        assert not await refused(access, signed())
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            by_weak = signed(weak, "weak")
        assert await refused(access, by_weak)
        assert await refused(access, hs256)
        assert await refused(access, signed(OTHER_RSA_KEY, "enc"))
        assert await refused(access, signed(OTHER_RSA_KEY, "rs512"))
        assert not await refused(access, signed(OTHER_RSA_KEY, "rs512", "RS512"))


async def test_a_token_without_the_id_of_a_key_needs_that_there_is_only_one(settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "jwks.json"
    async with accepting(settings, place, jwk(RSA_KEY), jwk(EC_KEY, "ec", "ES256")) as access:
        assert not await refused(access, signed(kid=None))
    async with accepting(settings, place, jwk(RSA_KEY), jwk(OTHER_RSA_KEY, "two")) as access:
        assert await refused(access, signed(kid=None))


async def test_a_file_that_changes_is_read_anew_and_a_withdrawn_key_ends_what_it_has_signed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set, "FILE_CHECK_EVERY", 0.05)
    place = tmp_path / "jwks.json"
    async with accepting(settings, place, jwk(RSA_KEY)) as access:
        old, new = signed(), signed(OTHER_RSA_KEY, "two")
        assert not await refused(access, old)
        _replace(place, jwk(OTHER_RSA_KEY, "two"))
        await until(lambda: refused(access, old), "what was verified by the old key is refused")
        assert not await refused(access, new)
        place.write_text("{")
        _replace(place)
        place.unlink()
        await asyncio.sleep(0.2)
        assert not await refused(access, new), "the last keys stay"


def _replace(place: Path, *keys: dict[str, Any]) -> None:
    partial = place.with_suffix(".new")
    partial.write_text(json.dumps({"keys": list(keys)}))
    partial.replace(place)


class Provider:
    """A provider's keys over HTTP, with what it may do wrong."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.fetches = 0
        self.answer: bytes | None = None
        self.pause = 0.0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.fetches += 1
        body = json.dumps({"keys": self.keys}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        try:
            if self.pause:
                for byte in head * 100:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(self.pause)
            writer.write(self.answer if self.answer is not None else head + body)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys?v=1"
    async with server:
        yield made


async def test_keys_that_are_rotated_are_found_and_made_up_ones_cause_few_fetches(
    settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.keys = [jwk(RSA_KEY)]
    async with accepting(settings, provider.url) as access:
        assert not await refused(access, signed())
        fetched = provider.fetches
        monkeypatch.setattr(key_set, "FETCH_AT_MOST_EVERY", 0.0)
        provider.keys = [jwk(RSA_KEY), jwk(OTHER_RSA_KEY, "two")]
        assert not await refused(access, signed(OTHER_RSA_KEY, "two")), "the new key is fetched at once"
        assert not await refused(access, signed()), "the old one is still there"
        assert provider.fetches == fetched + 1
        monkeypatch.setattr(key_set, "FETCH_AT_MOST_EVERY", 1000.0)
        answers = [refused(access, by_hand({"alg": "RS256", "kid": str(n)}, claims())) for n in range(500)]
        assert all(await asyncio.gather(*answers))
        assert provider.fetches == fetched + 1


async def test_many_tokens_of_a_new_key_cause_one_fetch(
    settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.keys = [jwk(RSA_KEY)]
    async with accepting(settings, provider.url) as access:
        assert not await refused(access, signed())
        fetched = provider.fetches
        provider.keys = [jwk(OTHER_RSA_KEY, "two")]
        monkeypatch.setattr(key_set, "FETCH_AT_MOST_EVERY", 0.0)
        tokens = [signed(OTHER_RSA_KEY, "two", sub=f"user {number}") for number in range(50)]
        assert not any(await asyncio.gather(*[refused(access, token) for token in tokens]))
        assert provider.fetches == fetched + 1


async def test_a_provider_that_cannot_be_reached_at_the_start_is_unavailable_and_not_a_refusal(
    settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set, "FETCH_AT_MOST_EVERY", 0.0)
    provider.answer = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
    async with accepting(settings, provider.url) as access:
        with pytest.raises(QueueUnavailable):
            await access.viewer_of(signed())
        provider.answer, provider.keys = None, [jwk(RSA_KEY)]
        assert not await refused(access, signed())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 << 20),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"no HTTP",
        b"",
    ],
    ids=["500", "redirect", "no keys", "empty", "deep", "large", "cut", "no HTTP", "nothing"],
)
async def test_the_last_keys_stay_when_the_provider_fails(
    settings: Settings, provider: Provider, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.keys = [jwk(RSA_KEY)]
    async with accepting(settings, provider.url) as access:
        assert not await refused(access, signed())
        monkeypatch.setattr(key_set, "FETCH_AT_MOST_EVERY", 0.0)
        fetched = provider.fetches
        provider.answer = answer
        assert await refused(access, signed(OTHER_RSA_KEY, "two"))
        assert provider.fetches == fetched + 1
        assert not await refused(access, signed(sub="bob"))


async def test_a_provider_that_answers_byte_by_byte_is_given_up(
    settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.keys = [jwk(RSA_KEY)]
    async with accepting(settings, provider.url) as access:
        assert not await refused(access, signed())
        monkeypatch.setattr(key_set, "FETCH_AT_MOST_EVERY", 0.0)
        monkeypatch.setattr(key_set, "FETCH_TIMEOUT", 0.3)
        provider.pause = 0.05
        began = time.monotonic()
        assert await refused(access, signed(OTHER_RSA_KEY, "two"))
        assert time.monotonic() - began < 3
        provider.pause = 0.0
        provider.keys = [jwk(OTHER_RSA_KEY, "two")]
        await until(lambda: _is_accepted(access, signed(OTHER_RSA_KEY, "two")), "the next fetch is another one")


async def _is_accepted(access: Authentication, token: str) -> bool:
    return not await refused(access, token)


async def test_a_view_token_of_a_token_ends_with_it(settings: Settings, tmp_path: Path) -> None:
    async with accepting(settings, tmp_path / "jwks.json", jwk(RSA_KEY)) as access:
        viewer = await access.viewer_of(signed())
        issued = access.issue(viewer, ViewLimits(), {Scope.READ}, 86_400)
        assert issued.expires_at <= viewer.expires_at  # type: ignore[operator]
        seen = await access.viewer_of(issued.token)
        assert (seen.subject, seen.scopes) == ("ada", frozenset({Scope.READ}))
        assert await access.revoke(viewer, issued.id)
        assert await refused(access, issued.token)
        assert not await refused(access, signed())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"jwks": "https://id.example.com/keys"}, "needs GQL_JOBS_JWT_ISSUER and GQL_JOBS_JWT_AUDIENCE"),
        ({"jwks": "http://id.example.com/keys"}, "https URL"),
        ({"jwks": "https://user:secret@id.example.com/keys"}, "https URL"),
        ({"jwks": "ftp://id.example.com/keys"}, "https URL"),
        ({"jwks": "file:///etc/passwd"}, "https URL"),
        ({"jwt_leeway": 301}, "less than or equal to 300"),
    ],
    ids=str,
)
def test_settings_that_would_let_others_in_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refusal:
        Settings(**given)
    assert "secret" not in str(refusal.value)
