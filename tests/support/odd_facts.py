"""Facts in files, each replaced by values that it should not have."""

import copy

# Beside them, the fact is left out; and an object gets one more.
ODD = {
    "null": None,
    "yes": True,
    "zero": 0,
    "negative": -1,
    "one": 1,
    "huge": 2**70,
    "beyond floats": 10**400,
    "fraction": 0.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "text": "nonsense",
    "empty text": "",
    "surrogate": "\ud800",
    "list": [],
    "list of a text": ["nonsense"],
    "object": {},
    "object of an object": {"nonsense": {"nonsense": None}},
}
MISSING, MORE = "missing", "one more"


def places(facts, at=()):
    """The keys that lead to each part of facts, but for the whole."""
    pairs = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


def odd_facts(facts):
    """Each place, each name of a value, and a copy of the facts that has it there; those that change nothing are left out."""
    for at in places(facts):
        for name in (*ODD, MISSING, MORE):
            changed = changed_at(facts, at, name)
            if changed != facts:
                yield at, name, changed


def changed_at(facts, at, name):
    """A copy of facts with one place changed."""
    changed = copy.deepcopy(facts)
    holder = changed
    for key in at[:-1]:
        holder = holder[key]
    if name == MISSING:
        del holder[at[-1]]
    elif name == MORE:
        value = holder[at[-1]]
        if isinstance(value, dict):
            value["one more"] = "nonsense"
        elif isinstance(value, list):
            value.append(value[0] if value else "nonsense")
    else:
        holder[at[-1]] = copy.deepcopy(ODD[name])
    return changed
