"""What loaders may yield, read in one way; and when values are looked at."""

from collections import UserDict

import numpy as np
import pytest
import torch
from guarded import CLASSES, GOOD, evaluated, everything, hardened, images, labels, small_model
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from robusttune import RobustLoss, ThreatModel
from robusttune.data.batches import (
    IMAGE_KEYS,
    LABEL_KEYS,
    check_classes,
    check_images,
    checked_labels,
    first_batch,
    hard_labels,
    images_of,
    stream,
    unpacked,
)
from robusttune.data.epochs import Batches
from robusttune.data.loaders import check_loader, is_exhaustible

# Training


def trained(loader, **settings):
    """The weights after training on the loader, always from the same start."""
    model = small_model()
    before = everything(model)
    with torch.random.fork_rng(devices=[]):
        hardened(model, loader, epochs=settings.pop("epochs", 2), **settings)
    after = everything(model)
    assert after[0] == before[0]
    assert after[2:4] == before[2:4]
    assert after[4] != before[4]
    return model.state_dict()


def close(one, other):
    return all(torch.allclose(one[key].float(), other[key].float(), atol=1e-5) for key in one)


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def test_bytes_train_like_the_floats_that_they_stand_for():
    whole = images().mul(255).byte()
    assert same(trained([(whole, labels())]), trained([(whole.float() / 255, labels())]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_whole_type_train_alike(dtype):
    assert same(trained([(images(), labels().to(dtype))]), trained([GOOD]))


@pytest.mark.parametrize("form", [list, np.asarray, tuple, lambda targets: targets[:, None]])
def test_labels_of_any_form_train_alike(form):
    targets = labels()
    targets = form(targets.tolist()) if form in (list, tuple) else form(targets)
    assert same(trained([(images(), targets)]), trained([GOOD]))


@pytest.mark.parametrize("form", [lambda rows: rows, torch.Tensor.float, torch.Tensor.double, torch.Tensor.bool])
def test_one_hot_labels_train_like_hard_ones(form):
    assert close(trained([(images(), form(F.one_hot(labels(), CLASSES)))]), trained([GOOD]))


def test_soft_labels_train_like_the_mean_of_both_classes():
    both = (F.one_hot(labels(), CLASSES) + F.one_hot((labels() + 1) % CLASSES, CLASSES)) / 2
    soft = trained([(images(), both)], eps=0.0)
    assert not close(soft, trained([GOOD], eps=0.0))
    model = small_model()
    out = RobustLoss(model, ThreatModel("linf", 0.0), images=images(), tasks=None, steps=1).eval()(images(), both)
    logits = model.eval()(images())
    parts = [F.cross_entropy(logits, targets) for targets in (labels(), (labels() + 1) % CLASSES)]
    assert torch.allclose(out["loss"], sum(parts) / 2)


@pytest.mark.parametrize("image_key", IMAGE_KEYS)
@pytest.mark.parametrize("label_key", LABEL_KEYS)
def test_dicts_with_customary_keys_are_read(image_key, label_key):
    first, targets = unpacked({"id": 3, label_key: labels(), image_key: images()})
    assert torch.equal(first, images())
    assert torch.equal(targets, labels())


def test_dicts_train_like_pairs():
    expected = trained([GOOD])
    for keys in (("pixel_values", "labels"), ("image", "label"), ("x", "y")):
        assert same(trained([dict(zip(keys, GOOD, strict=True))]), expected)
    assert evaluated(small_model(), [{"pixel_values": images(), "labels": labels()}])


def test_of_longer_batches_the_first_two_items_are_taken_and_that_is_logged_once(caplog):
    with caplog.at_level("INFO", logger="robusttune"):
        longer = trained([(*GOOD, torch.arange(8))] * 2)
    assert same(longer, trained([GOOD] * 2))
    logged = [record for record in caplog.records if "3 items: the first two are taken" in record.getMessage()]
    assert len(logged) == 1
    assert logged[0].levelname == "INFO"


def test_a_generator_trains_for_one_epoch_with_its_first_batch_too():
    other = (images(seed=1), labels().flip(0))
    # With max_steps the learning rate knows the length of the run, which a generator does not tell.
    seen = trained([GOOD, other], epochs=1, max_steps=2)
    assert same(trained((batch for batch in [GOOD, other]), epochs=1, max_steps=2), seen)
    assert not same(trained([other], epochs=1, max_steps=2), seen)
    assert not same(trained([GOOD], epochs=1, max_steps=2), seen)


# Reading


@pytest.mark.parametrize("batch", [GOOD, list(GOOD), UserDict(img=GOOD[0], y=GOOD[1]), (*GOOD, "more")])
def test_a_batch_is_read_as_the_same_tensors(batch):
    first, targets = unpacked(batch)
    assert first is GOOD[0]
    assert torch.equal(targets, GOOD[1])
    assert targets.dtype == torch.int64
    assert images_of(batch) is GOOD[0]
    assert images_of(GOOD[0]) is GOOD[0]


def test_the_prepared_images_come_before_the_raw_ones():
    batch = {"image": "a.png", "pixel_values": images(), "label": labels(), "labels": labels() * 0}
    first, targets = unpacked(batch)
    assert torch.equal(first, images())
    assert not targets.any()


@given(shape=st.tuples(*[st.integers(1, 6)] * 4), wrong=st.integers(1, 6).filter(lambda dims: dims != 4))
def test_any_images_of_four_dimensions_are_taken_unless_they_look_permuted(shape, wrong):
    _, height, width, channels = shape
    if channels <= 4 and min(height, width) > 4:
        with pytest.raises(ValueError, match="looks like"):
            check_images(torch.zeros(shape))
    else:
        check_images(torch.zeros(shape))
    with pytest.raises(ValueError, match="is needed"):
        check_images(torch.zeros((2,) * wrong))


@pytest.mark.parametrize(
    "shape", [(2, 3, 224, 224), (2, 1, 8, 8), (1, 3, 1, 1), (2, 200, 9, 20), (4, 3, 5, 2), (2, 2, 4, 3)]
)
def test_customary_shapes_are_taken(shape):
    check_images(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 224, 224, 3), (2, 8, 8, 1), (1, 5, 6, 4), (2, 64, 3, 12)])
def test_shapes_with_channels_last_are_not(shape):
    with pytest.raises(ValueError, match=r"which looks like \(N, H, W, C\): permute them to \(N, C, H, W\)"):
        check_images(torch.zeros(shape))


def test_labels_come_back_as_class_numbers_or_float_distributions():
    rows = F.one_hot(labels(), CLASSES)
    assert checked_labels(rows, 8).dtype == torch.float32
    assert torch.equal(hard_labels(checked_labels(rows, 8)), labels())
    assert torch.equal(checked_labels(labels()[:, None].int(), 8), labels())
    check_classes(labels(), CLASSES)
    check_classes(checked_labels(rows, 8), CLASSES)


@given(rows=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.1), min_size=1))
def test_every_distribution_is_taken_and_no_other_row(rows):
    raw = torch.tensor(rows)
    soft = raw / raw.sum(1, keepdim=True)
    assert torch.equal(checked_labels(soft, len(rows)), soft)
    for spoil in (soft * 1.01, soft - 0.3, torch.cat([soft[:-1], soft[-1:] * torch.nan])):
        with pytest.raises(ValueError, match=r"soft labels|several classes"):
            checked_labels(spoil, len(rows))


# On an accelerator: a meta tensor cannot be read at all, so what reads one would raise


def far(*tensors):
    return tuple(tensor.to("meta") for tensor in tensors)


def test_values_on_an_accelerator_are_not_waited_for_in_each_step():
    soft = F.one_hot(labels(), CLASSES).float()
    for targets in (labels(), soft):
        unpacked(far(images(), targets), wait=False)
    images_of(far(images()), wait=False)
    check_images(*far(images()))
    checked_labels(*far(soft), 8)


def test_values_on_an_accelerator_are_read_in_the_first_batch_and_in_evaluation():
    batches = [far(images(), labels())]
    assert len(list(Batches(batches).epoch(0))) == 1
    for read in (Batches(batches).first, lambda: list(stream(batches)), lambda: images_of(batches[0])):
        with pytest.raises((ValueError, RuntimeError, NotImplementedError), match="meta"):
            read()


# Loaders


class Streamed(IterableDataset):
    def __iter__(self):
        return iter([GOOD])


def test_what_yields_batches_is_taken():
    rows = DataLoader(TensorDataset(*GOOD), batch_size=4)
    for loader in (rows, [GOOD], (GOOD,), Streamed(), {1: GOOD}.values(), zip([GOOD[0]], [GOOD[1]], strict=True)):
        check_loader(loader)
        assert len(unpacked(first_batch(loader))[0]) in (4, 8)


def test_an_iterator_is_known_without_touching_it():
    rows = DataLoader(TensorDataset(*GOOD), batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    assert not is_exhaustible(rows)
    assert torch.equal(torch.get_rng_state(), before)
    assert is_exhaustible(batch for batch in rows)
    assert not is_exhaustible(Streamed())


def test_the_first_batch_of_an_iterator_is_not_lost():
    rows = [(images(seed=seed), labels()) for seed in (1, 2, 3)]
    for loader in (iter(rows), rows):
        batches = Batches(loader)
        assert torch.equal(batches.first()[0], rows[0][0])
        seen = list(batches.epoch(0))
        assert len(seen) == 3
        assert all(torch.equal(one[0], other[0]) for one, other in zip(seen, rows, strict=True))


class OneGenerator:
    """A loader that gives the generator with which it was made, whoever asks."""

    def __init__(self, rows):
        self.rows = (row for row in rows)

    def __iter__(self):
        return self.rows


def test_a_loader_that_gives_one_generator_again_and_again_is_refused():
    with pytest.raises(
        ValueError, match=r"OneGenerator that gives the same generator each time.* pass a list of batches"
    ):
        evaluated(small_model(), OneGenerator([GOOD, GOOD]))
    with pytest.raises(ValueError, match="the unlabeled_loader is a OneGenerator"):
        hardened(small_model(), [GOOD], unlabeled_loader=OneGenerator([GOOD]))


def test_unlabelled_batches_start_anew_without_end():
    batches = Batches([GOOD, {"image": images(seed=1)}, images(seed=2)], labelled=False, name="unlabeled_loader")
    endless = batches.endless()
    seen = [next(endless) for _ in range(7)]
    assert torch.equal(seen[0], seen[3])
    assert torch.equal(seen[2], seen[5])
    assert torch.equal(seen[1], images(seed=1))
    with pytest.raises(ValueError, match="the unlabeled_loader had no batch in epoch 1"):
        next(Batches([], labelled=False, name="unlabeled_loader").endless())


def test_a_sampler_that_shuffles_by_the_epoch_gives_another_order_in_each():
    sampler = DistributedSampler(range(100), 1, 0)
    loader = DataLoader(TensorDataset(torch.rand(100, 1, 8, 8)), 100, sampler=sampler)
    batches = Batches(loader, labelled=False)
    endless = batches.endless()
    first, second = next(endless), next(endless)
    assert not torch.equal(first, second)
    later = next(batches.endless(number=2))
    assert not torch.equal(first, later)
    assert not torch.equal(second, later)


def test_errors_say_where_they_are_from():
    with pytest.raises(ValueError, match="batch 2: images are a str"):
        list(stream([GOOD, ("a", "b")]))
    with pytest.raises(ValueError, match="batch 2 of epoch 3: images are a str"):
        list(Batches([GOOD, ("a", "b")]).epoch(2))
    with pytest.raises(RuntimeError, match=r"^broken file$"):
        list(stream(broken()))


def broken():
    yield GOOD
    raise RuntimeError("broken file")


def test_the_first_batch_of_an_iterator_is_held_until_its_epoch_begins():
    batches = Batches(iter([GOOD, GOOD]))
    with pytest.raises(RuntimeError, match=r"no batch is read ahead: call first\(\) before the first epoch"):
        batches.peeked  # noqa: B018
    assert batches.first() is batches.peeked
    assert len(list(batches.epoch(0))) == 2
    with pytest.raises(RuntimeError, match="no batch is read ahead"):
        batches.peeked  # noqa: B018
    assert batches.facts()["first"] is None


def test_complex_labels_are_no_class_numbers():
    with pytest.raises(ValueError, match=r"labels are torch.complex64 of shape .*, but class numbers are integers"):
        checked_labels(labels().to(torch.complex64), len(labels()))
