"""The Subject is frozen; its Tally holds the work, the images and the failures of one evaluation."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from torch import nn

import robusttune
from robusttune.data.pixels import Pixels
from robusttune.evaluations import Subject, Tally, accuracy
from robusttune.measuring.failures import Failure
from robusttune.measuring.tally import image_hashes
from robusttune.threat import ThreatModel

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


def a_subject(**settings):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    batches = list(zip(IMAGES.split(4), LABELS.split(4), strict=True))
    return Subject(model, Pixels(), ThreatModel("linf", 0.1), batches, (1, 4, 4), 3, torch.device("cpu"), **settings)


def test_a_subject_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        a_subject().seed = 1


def test_work_is_counted_in_images():
    subject = a_subject()
    for pixels, _ in subject.batches():
        subject.predicted(pixels)
    subject.logits(IMAGES.clone().requires_grad_())
    assert subject.tally.work == {"forward": 12, "backward": 6}


def test_a_tally_by_image_holds_the_last_pass_and_any_other_none():
    subject, other = a_subject(tally=Tally(by_image=True)), a_subject()
    for each in (subject, other):
        for _ in range(2):
            assert sum(len(labels) for _, labels in each.batches()) == 6
    assert subject.tally.labels == LABELS.tolist()
    assert subject.tally.hashes == image_hashes(IMAGES)
    assert len(set(subject.tally.hashes)) == 6
    assert other.tally.hashes == other.tally.labels == []


def test_hashes_survive_the_round_trip_through_8_bits():
    levels = (IMAGES * 255).round() / 255
    assert image_hashes(levels) == image_hashes(IMAGES)


def test_a_tally_keeps_the_failures_at_the_smallest_radii():
    tally, zeros = Tally(), np.zeros((1, 2, 2), np.float32)
    for number in range(12, 0, -1):
        tally.add_failures([Failure("linf", number / 100, 0, 1, 0.9, zeros + number, zeros)])
    assert [failure.eps for failure in tally.failures] == [number / 100 for number in range(1, 9)]


def test_evaluations_of_one_call_have_a_tally_each():
    tallies = []

    def one_pass(subject):
        tallies.append(subject.tally)
        right = [
            each for pixels, labels in subject.batches() for each in (subject.predicted(pixels) == labels).tolist()
        ]
        return accuracy("one_pass", sum(right), len(right), right=right)

    subject = a_subject()
    records = robusttune.evaluate(subject.model, subject.loader, [one_pass, one_pass], progress=False)
    assert [tally.work["forward"] for tally in tallies] == [6, 6]
    assert tallies[0] is not tallies[1]
    assert records.facts["evaluations"]["one_pass"]["images forward"] == 12
