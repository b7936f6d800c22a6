"""YAML whose numbers are decimal: in YAML 1.1, 010 is 8 and 1:30 is 90."""

import re

import yaml

__all__ = ["DecimalLoader"]

INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"

# What is no whole number stays text, which `numbers` reads.
RESOLVERS = {
    first: [(tag, form) for tag, form in forms if tag not in (INTEGER, FLOAT)]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for sign in "-+0123456789":
    RESOLVERS.setdefault(sign, []).append((INTEGER, re.compile(r"[-+]?(0|[1-9][0-9_]*)$")))
DecimalLoader = type("DecimalLoader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": RESOLVERS})
