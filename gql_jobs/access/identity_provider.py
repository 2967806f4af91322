"""Tokens of one's own identity provider: JSON Web Tokens, verified by its public keys, read as viewers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from gql_jobs.access.key_set import ASYMMETRIC, KeySet
from gql_jobs.access.records import KEY_SUBJECT, check_limits, check_name, from_url_text
from gql_jobs.jobs.errors import InvalidArgument, QueueUnavailable, Unauthenticated
from gql_jobs.jobs.viewer import Scope, Viewer, ViewLimits
from gql_jobs.settings import Settings

_SCOPES = {scope.value: scope for scope in Scope}


class IdentityProvider:
    """Reads the tokens of one issuer for one's own audience.

    Scopes are in the claim ``scope``. The tenant and the limits are in claims that settings name; once one is named, a
    token without it is refused, since it would see more than others.
    """

    def __init__(self, settings: Settings, keys: KeySet) -> None:
        self.keys = keys
        self._issuer = settings.jwt_issuer
        self._audience = list(settings.jwt_audience)
        self._leeway = timedelta(seconds=settings.jwt_leeway)
        self._tenant_claim = settings.jwt_tenant_claim
        claims = {
            "ids": settings.jwt_ids_claim,
            "tags": settings.jwt_tags_claim,
            "types": settings.jwt_types_claim,
            "queues": settings.jwt_queues_claim,
        }
        self._limit_claims = {kind: claim for kind, claim in claims.items() if claim is not None}

    async def viewer_of(self, token: str) -> Viewer:
        """Return the viewer of a token; its time ends with the leeway after its claim ``exp``.

        :raises Unauthenticated: if it is no valid token.
        :raises QueueUnavailable: if the keys of the provider were never read.
        """
        try:
            # A decoder of bytes takes several spellings of a signature for one.
            from_url_text(token.rpartition(".")[2])
            key, algorithm = await self._key_of(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return self._viewer(claims)
        # Not chained: what failed quotes the token.
        except (jwt.PyJWTError, InvalidArgument, ValueError, TypeError, OverflowError, OSError, RecursionError):
            raise Unauthenticated from None

    async def _key_of(self, token: str) -> tuple[jwt.PyJWK, str]:
        header = jwt.get_unverified_header(token)
        key_id, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in ASYMMETRIC or not isinstance(key_id, str | None):
            raise Unauthenticated
        key = self.keys.find(key_id, algorithm)
        if key is None:
            await self.keys.look_again()
            key = self.keys.find(key_id, algorithm)
        if key is None and not self.keys.is_known:
            raise QueueUnavailable("The keys of the identity provider cannot be fetched; try again.")
        if key is None:
            raise Unauthenticated
        return key, algorithm

    def _viewer(self, claims: dict[str, Any]) -> Viewer:
        subject = claims["sub"]
        if not isinstance(subject, str) or subject.startswith(KEY_SUBJECT):
            raise Unauthenticated
        check_name(subject, "sub")
        tenant = None
        if self._tenant_claim is not None:
            tenant = claims.get(self._tenant_claim)
            if not isinstance(tenant, str):
                raise Unauthenticated
            check_name(tenant, "tenant")
        limits = ViewLimits(**{kind: _names(claims.get(claim)) for kind, claim in self._limit_claims.items()})
        check_limits(limits)
        ends = datetime.fromtimestamp(int(claims["exp"]), UTC) + self._leeway
        return Viewer(subject, _scopes(claims.get("scope")), tenant, limits, ends)


def _scopes(claim: object) -> frozenset[Scope]:
    """Return the scopes that a claim names, separated by spaces or in a list; other words in it are of others."""
    names = claim.split() if isinstance(claim, str) else claim
    if names is None:
        return frozenset()
    if not isinstance(names, list):
        raise Unauthenticated
    return frozenset(_SCOPES[name.lower()] for name in names if isinstance(name, str) and name.lower() in _SCOPES)


def _names(claim: object) -> frozenset[str]:
    if not isinstance(claim, list) or not all(isinstance(name, str) for name in claim):
        raise Unauthenticated
    return frozenset(claim)
