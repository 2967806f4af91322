"""Documents that ask for more than they look like."""


def doubling_fragments(number: int) -> str:
    """Fragments that each spread the next one twice."""
    chain = [f"fragment F{i} on Job {{ ...F{i + 1} ...F{i + 1} }}" for i in range(number)]
    return f"{{ jobs {{ nodes {{ ...F0 }} }} }} {' '.join(chain)} fragment F{number} on Job {{ id }}"


def nested_events(levels: int) -> str:
    """The jobs of the events of the jobs of the events …"""
    return f"{{ jobs(first: 0) {{ nodes {{ {'events { job { ' * levels} id {'} } ' * levels} }} }} }}"
