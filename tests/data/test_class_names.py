"""Names of classes in data sets."""

from types import SimpleNamespace

import pytest
import torch
from brightness import numbered, write
from timm.data import create_dataset
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

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


def named(*names):
    data = TensorDataset(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long))
    if names:
        data.classes = list(names)
    return data


CASES = {
    "a data set": (named("cat", "dog"), ["cat", "dog"]),
    "part of one": (Subset(named("cat", "dog"), [0]), ["cat", "dog"]),
    "two that agree": (ConcatDataset([named("cat", "dog"), Subset(named("cat", "dog"), [1])]), ["cat", "dog"]),
    "one of two": (ConcatDataset([named("cat", "dog"), named()]), None),
    "none": (named(), None),
}


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES)
def test_names_are_found_in_what_a_data_set_wraps(data, expected):
    assert class_names(DataLoader(data)) == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm's reader
def test_the_names_of_timms_data_sets_are_found_in_its_order(tmp_path):
    write(tmp_path, numbered(["2", "10"]))
    assert class_names(DataLoader(create_dataset("", root=tmp_path))) == ["2", "10"]


def test_parts_that_name_other_classes_have_no_names_and_are_warned_of(caplog):
    data = ConcatDataset([named("cat", "dog"), named("dog", "cat")])
    assert class_names(DataLoader(data)) is None
    assert "name other classes, [cat, dog] and [dog, cat], so a label may mean several" in caplog.text


MAPPED = [
    (int, ["cat", "dog", "owl"]),
    ([2, 0, 1].__getitem__, ["dog", "owl", "cat"]),
    ([0, 0, 1].__getitem__, None),
    ([1, 2, 3].__getitem__, None),
    (lambda label: torch.eye(3)[label], None),
]


@pytest.mark.parametrize(("target_transform", "names"), MAPPED, ids=["same", "other order", "merged", "gap", "soft"])
def test_names_follow_the_labels_of_a_target_transform(target_transform, names):
    dataset = SimpleNamespace(classes=["cat", "dog", "owl"], target_transform=target_transform)
    assert class_names(SimpleNamespace(dataset=dataset)) == names
    assert class_names(SimpleNamespace(dataset=Subset(dataset, [0]))) == names
