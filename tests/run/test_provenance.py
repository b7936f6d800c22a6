"""Hashes of models and batches, which records and run.json keep: they must not change from version to version."""

import io
import platform

import torch
from odd_models import versioned, with_buffer
from torch import nn

from robusttune.data.epochs import Batches
from robusttune.run.provenance import fingerprint, of_all, versions


def a_model(dtype=torch.float32):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 8 + number)
    return model.to(dtype)


def test_the_fingerprint_of_a_model_is_that_of_earlier_versions():
    model = a_model()
    assert fingerprint(model) == "cc6c403c320c0188"
    assert fingerprint(a_model(torch.bfloat16)) == "602d0f269bff4a5f"
    model[1].running_mean[0] = 1e-6
    assert fingerprint(model) != "cc6c403c320c0188"


def test_the_fingerprint_sees_state_of_every_kind():
    kinds = [torch.eye(3).to_sparse(), torch.eye(3).to_sparse() * 2, torch.ones(3).to(torch.float8_e4m3fn)]
    hashes = [fingerprint(with_buffer(each)) for each in kinds]
    assert hashes == [fingerprint(with_buffer(each)) for each in kinds]
    extras = [{"version": 2}, {"version": 3}, {"scale": [torch.ones(1)]}, {"scale": [torch.zeros(1)]}, io.BytesIO(b"1")]
    hashes += [fingerprint(versioned(each)) for each in [*extras, io.BytesIO(b"2"), object()]]
    assert len(set(hashes)) == 10
    assert hashes[-1] == fingerprint(versioned(object()))


def test_the_hash_of_the_first_batch_is_that_of_earlier_versions():
    images, labels = torch.arange(48).reshape(1, 3, 4, 4) / 47, torch.tensor([2])
    batches = Batches([(images, labels)])
    batches.first()
    facts = {"images": None, "batches": 1, "shape": [1, 3, 4, 4], "first": "26910417fafb7466"}
    assert batches.facts() == {**facts, "fingerprint": "928ef97f06937cc2"}
    unlabelled = Batches([images], labelled=False)
    unlabelled.first()
    assert unlabelled.facts()["first"] == "e7470d3df0f6b2a2"


def test_one_hash_of_many_does_not_depend_on_their_order():
    assert of_all(["b", "a"]) == of_all(["a", "b"]) == "0e52b5f187de1088"
    assert of_all(["a"]) != of_all(["b"])


def test_versions_are_those_of_what_is_installed():
    installed = versions()
    assert installed["python"] == platform.python_version()
    assert installed["torch"] == torch.__version__.split("+")[0] or installed["torch"] == torch.__version__
