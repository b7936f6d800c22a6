"""The names of classes, wherever a data set keeps them."""

from types import SimpleNamespace

import pytest

from robusttune.data.class_names import class_names


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ({"classes": ["cat", "dog"]}, ["cat", "dog"]),
        ({"classes": (1, 2)}, ["1", "2"]),
        ({"class_to_idx": {"dog": 1, "cat": 0}}, ["cat", "dog"]),
        ({"reader": SimpleNamespace(class_to_idx={"dog": 1, "cat": 0})}, ["cat", "dog"]),
        ({"class_to_idx": {"dog": 2, "cat": 0}}, None),
        ({"class_to_idx": {}}, None),
        ({}, None),
    ],
)
def test_names_are_found(dataset, names):
    inside = SimpleNamespace(**dataset)
    for each in (inside, SimpleNamespace(dataset=inside)):
        assert class_names(SimpleNamespace(dataset=each)) == names
    assert class_names([]) is None
