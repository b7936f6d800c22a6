"""RobustAccuracy against `evaluate`, and as torchmetrics uses a Metric."""

import copy
from functools import partial

import pytest
import torch
from tiny_digits import THREAT, digit_loader, digits, trained_net
from torch import nn

torchmetrics = pytest.importorskip("torchmetrics")

import robusttune  # noqa: E402
from robusttune import ThreatModel  # noqa: E402
from robusttune.evaluations.sweep import sweep  # noqa: E402
from robusttune.integration.torchmetrics import RobustAccuracy  # noqa: E402

QUICK = {"attack": "apgd", "steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def net():
    return trained_net()


def by_evaluate(net, loader, threat=THREAT, **settings):
    settings = {**QUICK, **settings}
    seed = settings.pop("seed")
    which = partial(sweep, norms=[threat.norm], eps=[threat.eps], **settings)
    (record,) = robusttune.evaluate(
        net, loader, which, norm=threat.norm, eps=threat.eps, seed=seed, progress=False, device="cpu"
    )
    return record.value


def updated(metric, loader):
    for images, labels in loader:
        metric.update(images, labels)
    return metric


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.1])
def test_its_figure_is_that_of_evaluate(eps, net):
    """Ten batches, the last one short, are two windows."""
    threat, loader = ThreatModel("linf", eps), digit_loader(512, 665)
    metric = updated(RobustAccuracy(net, threat, **QUICK), loader)
    assert float(metric.compute()) == pytest.approx(by_evaluate(net, loader, threat), abs=1e-7)
    if eps:
        assert 0.02 < float(metric.compute()) < by_evaluate(net, loader, ThreatModel("linf", eps / 5)) - 0.05
        assert len(metric.judge.attacked([next(iter(loader))])) == 3


def test_the_seed_and_the_window_matter(net):
    """A random start of large steps alone: other numbers give other figures."""
    loader, threat = digit_loader(512, 660), ThreatModel("linf", 0.08)
    settings = {"attack": "pgd", "steps": 1, "losses": ["cross_entropy"]}
    values = {seed: by_evaluate(net, loader, threat, seed=seed, **settings) for seed in range(4)}
    assert len(set(values.values())) > 1
    for seed, value in values.items():
        metric = updated(RobustAccuracy(net, threat, seed=seed, **settings), loader)
        assert float(metric.compute()) == pytest.approx(value, abs=1e-7)


def test_a_loader_may_fill_the_same_memory_again(net):
    loader, memory = digit_loader(512, 640), None
    metric = RobustAccuracy(net, THREAT, **QUICK)
    for images, labels in loader:
        memory = (images.clone(), labels.clone()) if memory is None else memory
        metric.update(*(held.copy_(each) for held, each in zip(memory, (images, labels), strict=True)))
    assert float(metric.compute()) == pytest.approx(by_evaluate(net, loader), abs=1e-7)


def test_forward_gives_the_batch_and_adds_it(net):
    metric, batches = RobustAccuracy(net, THREAT, **QUICK), list(digit_loader(512, 552))
    metric.update(*batches[0])
    alone = [float(metric(*batch)) for batch in batches[1:]]
    expected = [by_evaluate(net, [batch]) for batch in batches]
    assert alone == pytest.approx(expected[1:], abs=1e-7)
    sizes = [len(labels) for _, labels in batches]
    total = sum(value * size for value, size in zip(expected, sizes, strict=True)) / sum(sizes)
    assert float(metric.compute()) == pytest.approx(total, abs=1e-6)


def test_reset_forgets_also_what_waits(net):
    metric = updated(RobustAccuracy(net, THREAT, **QUICK), digit_loader(512, 560))
    metric.reset()
    updated(metric, digit_loader(600, 616))
    assert float(metric.compute()) == pytest.approx(by_evaluate(net, digit_loader(600, 616)), abs=1e-7)


def test_the_model_stays_as_it_is_and_outside_of_state_dicts(net):
    net.train()
    before = copy.deepcopy(net.state_dict())

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.metric = net, RobustAccuracy(net, THREAT, **QUICK)

    module = Module()
    assert list(module.state_dict()) == [f"net.{name}" for name in before]
    with torch.inference_mode():
        updated(module.metric, digit_loader(512, 528)).compute()
    assert net.training
    assert all(each.requires_grad and each.grad is None for each in net.parameters())
    assert all(torch.equal(net.state_dict()[name], each) for name, each in before.items())


def test_a_collection_keeps_radii_apart(net):
    """Metrics with equal counts after one batch would be joined, were their states named alike."""
    metrics = torchmetrics.MetricCollection(
        {name: RobustAccuracy(net, ThreatModel("linf", eps), **QUICK) for name, eps in (("none", 0.0), ("some", 0.1))}
    )
    for images, labels in digit_loader(512, 544):
        metrics.update(images, labels)
    found = metrics.compute()
    for name, eps in (("none", 0.0), ("some", 0.1)):
        expected = by_evaluate(net, digit_loader(512, 544), ThreatModel("linf", eps))
        assert float(found[name]) == pytest.approx(expected, abs=1e-7)


def halves(net):
    return [updated(RobustAccuracy(net, THREAT, **QUICK), digit_loader(*rows)) for rows in ((512, 528), (528, 560))]


@pytest.mark.parametrize(
    "how", [lambda metric: metric, lambda metric: metric.metric_state, lambda metric: metric.clone()]
)
def test_merged_metrics_are_one_over_the_batches_of_both(how, net):
    one, other = halves(net)
    alone = [float(each.compute()) for each in halves(net)]
    assert float(one.compute()) == alone[0] != alone[1]
    one.merge_state(how(other))
    assert float(one.compute()) == pytest.approx((16 * alone[0] + 32 * alone[1]) / 48, abs=1e-6)
    assert float(other.compute()) == alone[1]
    empty = RobustAccuracy(net, THREAT, **QUICK)
    empty.merge_state(other)
    assert float(empty.compute()) == alone[1]
    with pytest.raises(
        ValueError, match=r"the other metric has the threat linf eps .* and this one l2 eps .*do not add up"
    ):
        RobustAccuracy(net, ThreatModel("l2", 0.5), **QUICK).merge_state(one)


def test_metrics_that_measure_different_things_are_not_merged(net):
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).mul_(1.1)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(64, 20))
    different = {
        "attack pgd .* and this one apgd": RobustAccuracy(net, THREAT, **{**QUICK, "attack": "pgd"}),
        r"attack apgd \(steps=7\) and this one apgd \(steps=3\)": RobustAccuracy(net, THREAT, **{**QUICK, "steps": 7}),
        "losses margin and this one ": RobustAccuracy(net, THREAT, **{**QUICK, "losses": ["margin"]}),
        r"input mean \(0.5\), std \(0.25\)": RobustAccuracy(net, THREAT, mean=0.5, std=0.25, **QUICK),
        "model Sequential with weights ": RobustAccuracy(wider, THREAT, **QUICK),
        r"model \w+ with weights \w+ and this one ": RobustAccuracy(other, THREAT, **QUICK),
    }
    one = halves(net)[0]
    before = dict(one.metric_state)
    for words, metric in different.items():
        with pytest.raises(ValueError, match=f"the other metric has the {words}.*merge metrics of the same model"):
            one.merge_state(metric)
        assert one.metric_state == before
    one.merge_state(
        RobustAccuracy(net, THREAT, **{**QUICK, "seed": 8})
    )  # which draws other random starts for other images


def test_a_state_dict_holds_the_counts_and_goes_on_from_them(net):
    one, other = halves(net)
    assert dict(one.state_dict()) == {}
    expected = float(one.compute())
    saved = halves(net)[0]
    saved.persistent(True)
    state = saved.state_dict()
    assert set(state) == {"right", "seen"}
    metrics = nn.ModuleDict({"metric": other})
    metrics.load_state_dict({f"metric.{name}": value for name, value in state.items()})
    assert float(other.compute()) == expected
    updated(other, digit_loader(528, 560))
    one.merge_state(halves(net)[1])
    assert float(other.compute()) == pytest.approx(float(one.compute()), abs=1e-7)
    with pytest.raises(RuntimeError, match="dist_sync_on_step"):
        RobustAccuracy(net, THREAT, dist_sync_on_step=True, **QUICK).merge_state(one)


FORGED = [
    {},
    {"right": torch.tensor(3)},
    {"right": torch.tensor(9), "seen": torch.tensor(3)},
    {"right": torch.tensor(-1), "seen": torch.tensor(3)},
    {"right": torch.tensor(1.5), "seen": torch.tensor(3)},
    {"right": torch.tensor([1]), "seen": torch.tensor([3])},
    {"right": 1, "seen": "3"},
]


@pytest.mark.parametrize("state", FORGED)
def test_counts_that_are_none_are_refused_and_change_nothing(state, net):
    metric = halves(net)[0]
    before = dict(metric.metric_state)
    with pytest.raises(ValueError, match=r"^the state has right .* and seen .*, but tensors of whole numbers"):
        metric.merge_state(state)
    if state:
        with pytest.raises(ValueError, match=r"^the state has right "):
            metric.load_state_dict(state)
    assert metric.metric_state == before


def test_a_collection_keeps_a_metric_and_its_clone_apart(net):
    metric = RobustAccuracy(net, THREAT, **QUICK)
    both = torchmetrics.MetricCollection({"one": metric, "other": metric.clone()})
    updated(both, digit_loader(512, 560))
    found = {name: float(value) for name, value in both.compute().items()}
    assert found["one"] == found["other"] == float(updated(metric.clone(), []).compute())
    assert {int(each.seen) for each in both.values()} == {48}


def without_steps(loss_of, images, threat, *, generator):
    return threat.project(images + 1, images)


def test_an_attack_without_steps_is_called_without_them(net):
    metric = updated(RobustAccuracy(net, THREAT, attack=without_steps), digit_loader(512, 528))
    assert 0 <= float(metric.compute()) <= 1


def test_a_merge_of_nothing_is_no_update(net):
    metric = RobustAccuracy(net, THREAT, **QUICK)
    metric.merge_state(RobustAccuracy(net, THREAT, **QUICK))
    with pytest.warns(UserWarning, match="called before"):
        metric.compute()


def test_what_does_not_fit_is_refused(net):
    with pytest.raises(ValueError, match=r"'nfgsm' leaves the ball.*use 'pgd' or 'apgd'"):
        RobustAccuracy(net, THREAT, attack="nfgsm", steps=None)
    metric = RobustAccuracy(net, THREAT, **QUICK)
    metric.update(digits(0, 4)[0], torch.tensor([1, 2, 3, 10]))
    with pytest.raises(ValueError, match="label 10 is out of range: the model has 10 classes"):
        metric.compute()


def in_process(rank, net, port, results):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    batches = list(digit_loader(512, 576))[rank::2]
    metric = updated(RobustAccuracy(net, THREAT, **QUICK), batches)
    results[rank] = float(metric.compute())
    assert not metric.waiting
    halves = [updated(RobustAccuracy(net, THREAT, **QUICK), [batch]) for batch in batches[:2]]
    halves[0].merge_state(halves[1])
    halves[0].persistent(True)
    with halves[0].sync_context():
        results[f"merged {rank}"] = {name: int(value) for name, value in halves[0].state_dict().items()}
    assert int(halves[0].seen) == sum(len(labels) for _, labels in batches[:2])
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_add_up_their_counts(net):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(in_process, (net, port, results), nprocs=2)
        found = dict(results)
    batches = list(digit_loader(512, 576))
    expected = (by_evaluate(net, batches[0::2]) + by_evaluate(net, batches[1::2])) / 2
    assert found[0] == found[1] == pytest.approx(expected, abs=1e-6)
    seen = sum(len(labels) for _, labels in batches[:4])
    assert found["merged 0"] == found["merged 1"]
    assert found["merged 0"]["seen"] == seen > found["merged 0"]["right"]
