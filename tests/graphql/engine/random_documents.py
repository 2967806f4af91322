"""Random documents over the schema: any selection, with aliases, fragments and directives, below the fields of jobs."""

from itertools import count

from graphql import (
    GraphQLNamedType,
    GraphQLSchema,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_required_argument,
)
from hypothesis import strategies as st

from tests.graphql.sample_jobs import IDS

DEEPEST = 5


class _Selections:
    """Draws selections for one document, and keeps the fragments that they spread."""

    def __init__(self, draw: st.DrawFn, schema: GraphQLSchema) -> None:
        self._draw = draw
        self._schema = schema
        self._number = count()
        self._directives = draw(st.sampled_from([[""], ["", "", "", " @include(if: $yes)", " @skip(if: $yes)"]]))
        self._fragments: list[str] = []

    def below(self, name: str, depth: int = DEEPEST, *, apart: bool = False) -> str:
        """A selection of a type.

        :param apart: give every field a name of its own. The same name twice is merged; below a condition on the type
            it might mean another type.
        """
        of = self._schema.type_map[name]
        parts = ["__typename", *self._fields(of, depth, apart=apart)]
        if is_abstract_type(of) and depth > 0:
            kinds = self._draw(st.lists(st.sampled_from(self._schema.get_possible_types(of)), max_size=2))
            parts += [f"... on {kind.name} {self.below(kind.name, depth - 1, apart=True)}" for kind in kinds]
        selection = "{ " + " ".join(parts) + " }"
        if not self._draw(st.integers(0, 4)):
            fragment = f"F{next(self._number)}"
            self._fragments.append(f"fragment {fragment} on {name} {selection}")
            return f"{{ ...{fragment} }}"
        return selection

    def _fields(self, of: GraphQLNamedType, depth: int, *, apart: bool) -> list[str]:
        fields = {
            name: get_named_type(field.type)
            for name, field in getattr(of, "fields", {}).items()
            if not any(map(is_required_argument, field.args.values()))
            and (depth > 0 or is_leaf_type(get_named_type(field.type)))
        }
        parts = []
        for name in self._draw(st.lists(st.sampled_from(sorted(fields)), max_size=6)) if fields else []:
            inner = "" if is_leaf_type(fields[name]) else self.below(fields[name].name, depth - 1, apart=apart)
            alias = f"{name}_{next(self._number)}: " if apart or self._draw(st.booleans()) else ""
            directive = self._draw(st.sampled_from(self._directives))
            parts.append(f"{alias}{name}{directive} {inner}")
        return parts

    def document(self, kind: str, fields: str) -> str:
        """The operation and its fragments."""
        variables = "($yes: Boolean!) " if "$yes" in " ".join([fields, *self._fragments]) else ""
        return "\n".join([f"{kind} {variables}{{ {fields} }}", *self._fragments])


@st.composite
def queries(draw: st.DrawFn, schema: GraphQLSchema) -> str:
    """A query of the jobs, with any selection below them."""
    drawn = _Selections(draw, schema)
    found = draw(st.sampled_from(IDS))
    roots = f'jobs {drawn.below("JobConnection")} job(id: "{found}") {drawn.below("Job")}'
    return drawn.document("query", f"{roots} viewer {drawn.below('Viewer')}")


@st.composite
def subscriptions(draw: st.DrawFn, schema: GraphQLSchema) -> str:
    """A subscription to all events there have been, of all jobs or of one, with any selection below them."""
    drawn = _Selections(draw, schema)
    roots = ["jobEvents(", *(f'jobProgress(id: "{job_id}", ' for job_id in IDS)]
    return drawn.document("subscription", f'{draw(st.sampled_from(roots))}after: "0") {drawn.below("JobEvent")}')
