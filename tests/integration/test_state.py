"""What a RobustLoss holds beside its model, saved and restored; heads in somebody else's optimizer."""

import copy

import pytest
import torch
from tiny_digits import a_robust_loss, digits, same_tensors, tiny_net

from robusttune.integration.state import Resumable, add_heads


def trained(robust_loss, steps, optimizer=None):
    optimizer = optimizer or torch.optim.SGD(robust_loss.parameters(), 0.05, momentum=0.9)
    images, labels = digits(0, 16)
    robust_loss.train()
    for _ in range(steps):
        optimizer.zero_grad()
        robust_loss(images, labels)["loss"].backward()
        optimizer.step()
    return optimizer


def test_a_loss_goes_on_exactly_from_its_state():
    straight = a_robust_loss(tiny_net())
    trained(straight, 3)
    first, second = a_robust_loss(tiny_net()), a_robust_loss(tiny_net(), seed=5)
    before = trained(first, 2)
    state = Resumable(first).state_dict()
    second.model.load_state_dict(first.model.state_dict())
    optimizer = torch.optim.SGD(second.parameters(), 0.05, momentum=0.9)
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    trained(first, 1, before)  # the state is a copy, which this does not change
    Resumable(second).load_state_dict(state)
    trained(second, 1, optimizer)
    assert same_tensors(second.state_dict(), straight.state_dict())


def test_a_state_of_other_tasks_is_refused():
    state = Resumable(a_robust_loss(tiny_net(), tasks=["jigsaw"])).state_dict()
    with pytest.raises(
        ValueError, match="the checkpoint has heads of jigsaw, but the tasks are rotation: pass the tasks="
    ):
        Resumable(a_robust_loss(tiny_net())).load_state_dict(state)


def test_heads_join_the_first_group_once():
    robust_loss = a_robust_loss(tiny_net())
    model = robust_loss.model
    optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 0.1}], 0.2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(2):
        add_heads(optimizer, robust_loss)
    heads = [id(parameter) for parameter in robust_loss.heads.parameters()]
    assert [id(parameter) for parameter in optimizer.param_groups[0]["params"]][2:] == heads
    assert len(optimizer.param_groups) == 2
    before = robust_loss.heads.state_dict()["layers.rotation.weight"].clone()
    trained(robust_loss, 1, optimizer)
    schedule.step()
    assert not torch.equal(robust_loss.heads.state_dict()["layers.rotation.weight"], before)


def test_an_optimizer_of_another_model_is_refused():
    optimizer = torch.optim.SGD(tiny_net().parameters(), 0.1)
    with pytest.raises(
        ValueError, match="SGD, has no parameter of the model in RobustLoss: make both of the same module"
    ):
        add_heads(optimizer, a_robust_loss(tiny_net()))
