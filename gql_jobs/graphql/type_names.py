"""Which names the models, enums and unions within payloads and results have in a schema.

Each has the name of its class. Where that is taken, by a type of the API, by what follows from the name of a job type,
or by another class, what holds the class goes in front, its module at last: ``Box`` of ``my_app.video`` is ``VideoBox``
beside another ``Box``, which is ``AudioBox`` then. So the names follow from what there is, never from its order.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.alias_generators import to_pascal

from gql_jobs.jobs.field_kinds import (
    EnumKind,
    FieldKind,
    ModelKind,
    UnionKind,
    graphql_name,
    input_kinds,
    models_in,
    parts_of_kind,
)

INPUT = "Input"
"""What the names of input types end with."""


class _Owner(NamedTuple):
    """What needs a name. ``scope``: what holds its definition, outermost first.

    ``suffixes``: what is added to the name for each of its types; ``part_of``: the first payload or result that has it.
    """

    scope: tuple[str, ...]
    name: str
    suffixes: frozenset[str]
    part_of: str

    def candidate(self, level: int) -> str:
        """Return the name with so many parts of the scope before it; beyond them, with what it is a part of."""
        if level > len(self.scope):
            return self.part_of + self.name
        return "".join(map(_word, self.scope[len(self.scope) - level :])) + self.name

    def types(self, level: int) -> list[str]:
        """Return the names of its types."""
        return [self.candidate(level) + suffix for suffix in self.suffixes]

    @property
    def is_bundled(self) -> bool:
        """Whether it comes with gql-jobs, whose names are documented."""
        return self.scope[:1] == ("gql_jobs",)

    def __str__(self) -> str:
        return ".".join((*self.scope, self.name))


def _word(part: str) -> str:
    return to_pascal("_".join(re.findall(r"[0-9A-Za-z]+", part)))


def type_names(
    payloads: Mapping[str, type[BaseModel]], results: Mapping[str, type[BaseModel]], taken: Collection[str]
) -> Mapping[Any, str]:
    """Return the names of models and enums by their classes, and of unions by what those are named after.

    An input type has the name of its model or union, with ``INPUT`` behind it.

    :param payloads: models that are both shown and given, by the names of their own types.
    :param results: models that are shown only.
    :param taken: names that are not to be had.
    :raises ValueError: if two cannot be told apart: they have one name in one place.
    """
    owners: dict[Any, _Owner] = {}
    for models, suffixes in ((payloads, ("", INPUT)), (results, ("",))):
        for name, model in models.items():
            for of, scope, own_name in _named_in(model):
                known = owners.get(of) or _Owner(scope, own_name, frozenset(), name)
                added = frozenset(suffixes if not (isinstance(of, type) and issubclass(of, Enum)) else ("",))
                owners[of] = known._replace(suffixes=known.suffixes | added, part_of=min(known.part_of, name))
    levels = dict.fromkeys(owners, 0)
    while moved := _contested(owners, levels, taken):
        for of in moved:
            levels[of] += 1
            if levels[of] > len(owners[of].scope) + 1:
                raise ValueError(f"The GraphQL type of {owners[of]} would have the name of another one; rename it.")
    return {of: owner.candidate(levels[of]) for of, owner in owners.items()}


def _contested(owners: Mapping[Any, _Owner], levels: Mapping[Any, int], taken: Collection[str]) -> set[Any]:
    """Return the owners that cannot keep their names; of several, one that is alone nearest to its own keeps it."""
    claims: dict[str, list[Any]] = defaultdict(list)
    for of, owner in owners.items():
        for name in owner.types(levels[of]):
            claims[name].append(of)
    moved: set[Any] = set()
    for name, claimants in claims.items():
        ranks = {of: -1 if owners[of].is_bundled else levels[of] for of in claimants}
        first = min(ranks.values())
        kept = [of for of in claimants if ranks[of] == first]
        if name in taken or len(kept) > 1:
            kept = []
        moved.update(of for of in claimants if of not in kept)
    return moved


_Named = tuple[Any, tuple[str, ...], str]
"""What needs a name, what holds it, and its own name."""


def _named_in(model: type[BaseModel]) -> Iterator[_Named]:
    for each in (model, *models_in(model)):
        for kind in input_kinds(each).values():
            for part in parts_of_kind(kind):
                yield from _named_by(part)


def _named_by(kind: FieldKind) -> Iterator[_Named]:
    match kind:
        case ModelKind(cls) | EnumKind(cls):
            yield cls, _scope(cls), graphql_name(cls.__name__)
        case UnionKind((type() as model, str(field)) as named_by):
            yield named_by, _scope(model), graphql_name(model.__name__) + to_pascal(field)
        case UnionKind(alias):
            yield alias, tuple(str(alias.__module__).split(".")), graphql_name(alias.__name__)
    if isinstance(kind, UnionKind):
        for choice in kind.choices:
            yield from _named_by(ModelKind(choice.model))


def _scope(cls: type) -> tuple[str, ...]:
    """Return the parts of the names of a class's module and of the classes or functions that it stands in."""
    return (*cls.__module__.split("."), *(part for part in cls.__qualname__.split(".")[:-1] if part != "<locals>"))
