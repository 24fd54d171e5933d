"""Who is signed in, and what that person may do; the pages ask this first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.web.http.endpoint import Endpoint, Person
from flows.web.http.people import People
from model_core.access import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """What a person shows. token: needed where the console has tokens. name: by which others know the person where it has none."""

    token: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """The person that a request comes from. role: "" for a person who has to sign in first. has_session: orders carry the person's name."""

    name: str
    role: str
    has_session: bool
    needs_token: bool


def signed_in(people: People, person: Person | None) -> SignedIn:
    """The document of a person; None: a token is needed and was not shown."""
    if person is None:
        return SignedIn(name="", role="", has_session=False, needs_token=True)
    return SignedIn(name=person.name, role=str(person.role), has_session=bool(person.session), needs_token=people.needs_token)


def session_endpoints(people: People) -> Sequence[Endpoint]:
    """Signing out; who is signed in. Signing in sets a cookie and is a route of its own (`flows.web.app`)."""
    return (
        Endpoint(
            method="GET",
            path="/api/me",
            does="Who the caller is, with its role",
            role=Role.OBSERVE,
            answer=SignedIn,
            handle=lambda call: signed_in(people, call.person),
        ),
    )
