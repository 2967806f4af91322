"""The complexity of an operation, measured in one walk over its document that visits every selection once.

A fragment is measured once, however often it is spread; walking it at every spread would take time that doubles with
each fragment. ``documents`` compares the complexity with the limits. The document need not be valid: it is measured
before it is validated, which costs more.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    Node,
    NullValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    Visitor,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_introspection_type,
    is_list_type,
    visit,
)
from msgspec import Struct
from msgspec.structs import replace

LARGEST_PAGE = 500
"""Items that a page may have. More are not counted: the resolver refuses such an argument."""
PAGE_ARGUMENTS = ("first", "last", "limit")
"""Names of arguments that say how many items a list has."""
ASSUMED_LIST = 10
"""Items that are counted of a list whose size no argument says."""
ASSUMED_LIST_WITHIN = 100
"""Items that are counted of a list whose size no argument says, in an item of such a list: whoever nests them asks for
what grows with each level, and for most of it more than once."""
INTROSPECTION_LIST = 3
"""Items that are counted of a list in an introspection: cheap, and graphql-core limits how its lists are nested."""
VALUES_PER_DEFINITION = 40
"""Values of an introspection that may be made for each definition in the schema; all that tools ask for are a dozen."""
_DEEPEST = 150
"""Selections within selections, fragments included, that are walked; below what Python's own stack holds."""


def definitions_of(schema: GraphQLSchema) -> int:
    """Return how many types, fields, arguments and values of enums a schema has."""
    count = 0
    for named in schema.type_map.values():
        fields = getattr(named, "fields", {})
        count += 1 + len(fields) + len(getattr(named, "values", ()))
        count += sum(len(getattr(field, "args", ())) for field in fields.values())
    return count


class TooDeep(Exception):
    """A document is nested too deeply to be measured. ``depth``: the levels that were visited, at least."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self.depth = depth


class Complexity(Struct, frozen=True):
    """The complexity of a selection, with every fragment counted at each of its spreads."""

    depth: int = 0
    """Levels of fields, those of the introspection apart."""
    introspection_depth: int = 0
    fields: int = 0
    """Fields at the first level."""
    aliases: int = 0
    directives: int = 0
    cost: int = 0
    """Values to be resolved, with the sizes of lists counted."""
    cost_per_item: int = 0
    """The cost of each item of a list below, where an argument of the field around the selection says its size."""
    cost_per_assumed: int = 0
    """The cost of each item of such a list, where none says it."""
    cost_within: int = 0
    """The whole cost where the selection is part of an item of a list, other than those of a page."""

    def __add__(self, other: "Complexity") -> "Complexity":
        return Complexity(
            max(self.depth, other.depth),
            max(self.introspection_depth, other.introspection_depth),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.directives + other.directives,
            self.cost + other.cost,
            self.cost_per_item + other.cost_per_item,
            self.cost_per_assumed + other.cost_per_assumed,
            self.cost_within + other.cost_within,
        )

    def cost_of(self, items: int) -> int:
        """Return the whole cost if that list has so many items."""
        return self.cost + self.cost_per_item * items

    @property
    def assumed_cost(self) -> int:
        """Return the whole cost if no argument says how many items that list has."""
        return self.cost + self.cost_per_assumed * ASSUMED_LIST


_NOTHING = Complexity()


class Measurement:
    """One walk over one operation; ``operation`` may be called once."""

    def __init__(
        self, schema: GraphQLSchema, fragments: Mapping[str, FragmentDefinitionNode], variables: Mapping[str, Any]
    ) -> None:
        self.visited = 0
        """Selections that were visited."""
        self.used_variables = False
        """Whether the size of a list came from a variable, so that the next request may come to something else."""
        self._schema = schema
        self._fragments = fragments
        self._variables = variables
        self._measured: dict[str, Complexity] = {}
        self._level = 0

    def operation(self, node: OperationDefinitionNode) -> Complexity:
        """Return the complexity of a whole operation; a page without a size counts as ``ASSUMED_LIST`` items.

        :raises TooDeep: if it is nested too deeply to be walked.
        """
        defaults = {d.variable.name.value: d.default_value for d in node.variable_definitions or ()}
        self._variables = {**{n: v for n, v in defaults.items() if v is not None}, **self._variables}
        found = self._selections(node.selection_set, self._schema.get_root_type(node.operation))
        return replace(found, directives=found.directives + len(node.directives or ()), cost=found.assumed_cost)

    def _selections(self, node: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Complexity:
        if node is None:
            return _NOTHING
        self._level += 1
        if self._level > _DEEPEST:
            raise TooDeep(self._level)
        total = _NOTHING
        for selection in node.selections:
            self.visited += 1
            total += self._selection(selection, parent) + Complexity(directives=len(selection.directives or ()))
        self._level -= 1
        return total

    def _selection(self, node: SelectionNode, parent: GraphQLNamedType | None) -> Complexity:
        if isinstance(node, FieldNode):
            return self._field(node, parent)
        if isinstance(node, InlineFragmentNode):
            condition = node.type_condition
            return self._selections(node.selection_set, self._type(condition.name.value) if condition else parent)
        assert isinstance(node, FragmentSpreadNode)
        return self._spread(node.name.value)

    def _spread(self, name: str) -> Complexity:
        known = self._measured.get(name)
        if known is None:
            # Of a cycle, which validation refuses, only the first round counts.
            self._measured[name] = _NOTHING
            definition = self._fragments.get(name)
            if definition is None:
                return _NOTHING
            known = self._selections(definition.selection_set, self._type(definition.type_condition.name.value))
            self._measured[name] = known
        return known

    def _type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.get_type(name)

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Complexity:
        field = self._definition(node, parent)
        kind = get_named_type(field.type) if field is not None else None
        below = self._selections(node.selection_set, kind)
        is_list = field is not None and is_composite_type(kind) and is_list_type(get_nullable_type(field.type))
        itself = Complexity(
            depth=1 + below.depth,
            introspection_depth=below.introspection_depth,
            fields=1,
            aliases=below.aliases + (node.alias is not None),
            directives=below.directives,
        )
        if kind is not None and is_introspection_type(kind):
            cost = (1 + below.cost) * (INTROSPECTION_LIST if is_list else 1)
            return replace(
                itself, depth=0, introspection_depth=1 + below.introspection_depth, cost=cost, cost_within=cost
            )
        size = self._size(node, field)
        within = 1 + below.cost_within
        if is_list and size is None:
            return replace(
                itself,
                cost_per_item=1 + below.assumed_cost,
                cost_per_assumed=within,
                cost_within=within * ASSUMED_LIST_WITHIN,
            )
        if is_list:
            return replace(itself, cost=within * (size or 0), cost_within=within * (size or 0))
        if size is None:
            return replace(itself, cost=1 + below.assumed_cost, cost_within=within)
        return replace(itself, cost=1 + below.cost_of(size), cost_within=1 + below.cost_of(size))

    def _definition(self, node: FieldNode, parent: GraphQLNamedType | None) -> GraphQLField | None:
        return self._schema.get_field(parent, node.name.value) if is_composite_type(parent) else None

    def _size(self, node: FieldNode, field: GraphQLField | None) -> int | None:
        """Return how many items the arguments of a field ask for; None where none of them says so."""
        if field is None:
            return None
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        for name, argument in field.args.items():
            is_size = name in PAGE_ARGUMENTS
            is_list = is_list_type(get_nullable_type(argument.type))
            if not is_size and not is_list:
                continue
            value = self._plain(given.get(name))
            if is_list and isinstance(value, list | tuple):
                return len(value)
            if is_size:
                if value is None:
                    # Strawberry still writes defaults in graphql-core's older form.
                    value = argument.default.value if argument.default else argument.default_value
                # JSON may write an integer as 500.0.
                return int(min(max(value, 0), LARGEST_PAGE)) if isinstance(value, int | float) else None
        return None

    def _plain(self, node: Any) -> Any:
        """Return the value of an argument as far as sizes need it: a number, a list of anything, or else None."""
        if isinstance(node, VariableNode):
            self.used_variables = True
            node = self._variables.get(node.name.value)
        if isinstance(node, ListValueNode):
            return node.values
        if isinstance(node, IntValueNode):
            return float(node.value)  # int() refuses a number of more than 4300 digits
        return None if isinstance(node, NullValueNode) else node


# The shape of a document. Some rules of validation compare everything in a set with everything else in it, so that is
# bounded before.


def without_repetitions(document: DocumentNode) -> DocumentNode:
    """Return the document without fields that stand in the same set before, by nothing but their names."""
    if all(len(_distinct(node)) == len(node.selections) for level in _levels(document) for node in level):
        return document

    class Folding(Visitor):
        def leave_selection_set(self, node: SelectionSetNode, *_args: Any) -> Any:
            kept = _distinct(node)
            return SelectionSetNode(selections=kept, loc=node.loc) if len(kept) < len(node.selections) else None

    return cast("DocumentNode", visit(document, Folding()))


def most_selections(document: DocumentNode) -> int:
    """Return how many selections the largest set of a document has, with those of inline fragments in it."""
    return max((sum(len(node.selections) for node in level) for level in _levels(document)), default=0)


def _levels(document: DocumentNode) -> Iterator[list[SelectionSetNode]]:
    """Yield each set of selections, with the sets of the inline fragments in it."""
    waiting = [_set_of(definition) for definition in document.definitions]
    while waiting:
        root = waiting.pop()
        if root is None:
            continue
        level = [root]
        for node in level:
            for selection in node.selections:
                if isinstance(selection, InlineFragmentNode):
                    level.append(selection.selection_set)
                elif isinstance(selection, FieldNode):
                    waiting.append(selection.selection_set)
        yield level


def _set_of(node: Node) -> SelectionSetNode | None:
    """Return the selections of an operation or a fragment; None for a definition of another kind."""
    return node.selection_set if isinstance(node, OperationDefinitionNode | FragmentDefinitionNode) else None


def _distinct(node: SelectionSetNode) -> tuple[SelectionNode, ...]:
    found: dict[object, SelectionNode] = {}
    for selection in node.selections:
        found.setdefault(_words(selection), selection)
    return tuple(found.values())


def _words(selection: SelectionNode) -> object:
    """Return what a field is that consists of its name alone; all other selections are equal to themselves only."""
    if not isinstance(selection, FieldNode) or selection.alias or selection.arguments or selection.directives:
        return id(selection)
    return id(selection) if selection.selection_set else selection.name.value
