"""The pretend accelerator finds what is forgotten on the CPU and where the program waits: in torch, and planted in the library."""

import pytest
import torch
from pretend_device import NAME, Waits
from short_runs import digits, hardened
from torch.nn import functional as F
from torch.utils.data import DataLoader

from robusttune import RobustLoss
from robusttune.model.devices import available_accelerator
from robusttune.objectives.adversarial import adversarial
from robusttune.training.batch import LoadedBatch

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")

# What torch does there: errors that a GPU gives, waits that a GPU would make, and neither.

ERRORS = {
    "mixed operands": (lambda here, cpu: here + cpu, "two devices, pretend:0 and cpu"),
    "labels left behind": (lambda here, cpu: F.cross_entropy(here, cpu.argmax(1)), "two devices, pretend:0 and cpu"),
    "targets in place": (lambda here, cpu: here.addcmul_(cpu, cpu), "two devices, pretend:0 and cpu"),
    "another's generator": (lambda here, _: here.uniform_(generator=torch.Generator()), "'pretend' device type for generator"),
    "numpy": (lambda here, _: here.numpy(), "can't convert pretend:0"),
}  # fmt: skip
WAITS = {
    "item": lambda here, cpu: here.sum().item(),
    "bool": lambda here, cpu: bool((here > 0).all()),
    "tolist": lambda here, cpu: here.tolist(),
    "cpu": lambda here, cpu: here.cpu(),
    "cpu without waiting": lambda here, cpu: here.to("cpu", non_blocking=True),
    "copy to the cpu": lambda here, cpu: torch.empty_like(cpu).copy_(here),
    "to": lambda here, cpu: cpu.to(here.device),
    "tensor": lambda here, cpu: torch.tensor([1.0, 2.0], device=here.device),
    "nonzero": lambda here, cpu: (here > 0.5).nonzero(),
    "mask": lambda here, cpu: here[here > 0.5],
    "mask of the cpu": lambda here, cpu: here[cpu > 0.5],
    "rows of the cpu": lambda here, cpu: here[torch.tensor([0, 1])],
    "equal": lambda here, cpu: torch.equal(here, here + 1),
    "unique": lambda here, cpu: here.unique(),
    "close": lambda here, cpu: torch.allclose(here, here + 1),
    "histogram": lambda here, cpu: torch.histc(here, 5),
    "members": lambda here, cpu: torch.isin(here, here[0]),
    "draws by weight": lambda here, cpu: torch.multinomial(here, 2),
    "inverse": lambda here, cpu: torch.linalg.inv(here.T @ here),
    "solution": lambda here, cpu: torch.linalg.solve(here.T @ here, here.T),
    "triangle": lambda here, cpu: torch.linalg.cholesky(here.T @ here),
}
NEITHER = {
    "scalars": lambda here, cpu: (here * 2 + torch.tensor(1.0)).clamp(0, 1),
    "sent": lambda here, cpu: cpu.to(here.device, non_blocking=True),
    "rows": lambda here, cpu: here[here.argmax(0)],
    "filled mask": lambda here, cpu: here.clone().masked_fill_(here > 0.5, 0),
    "own generator": lambda here, cpu: torch.rand(3, device=here.device, generator=torch.Generator(here.device)),
}


def operands(device):
    cpu = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    return cpu.to(device), cpu


@pytest.mark.parametrize("name", ERRORS)
def test_what_a_gpu_refuses_is_refused(accelerator, name):
    run, match = ERRORS[name]
    with pytest.raises((RuntimeError, TypeError), match=match):
        run(*operands(accelerator))


@pytest.mark.parametrize("name", [*WAITS, *NEITHER])
def test_waits_are_noted(accelerator, name):
    here, cpu = operands(accelerator)
    with Waits() as waits:
        {**WAITS, **NEITHER}[name](here, cpu)
    assert bool(waits.noted) == (name in WAITS)


def test_waits_in_a_backward_pass_are_noted(accelerator):
    images = operands(accelerator)[0].requires_grad_()
    images.register_hook(lambda gradient: gradient * gradient.sum().item())
    with Waits() as waits:
        images.sum().backward()
    assert [wait.operation for wait in waits.noted] == ["_local_scalar_dense"]


def test_the_device_is_there_in_such_a_test_only(accelerator):
    assert available_accelerator() == torch.device(NAME)
    assert accelerator == torch.device(NAME, 0)
    with pytest.raises(AssertionError, match="waits for the device"), Waits(refuse=True):
        torch.ones(2, device=accelerator).sum().item()


def test_without_the_fixture_the_device_is_away():
    assert available_accelerator() is None or torch.cuda.is_available()


# Faults planted in the library, each of which the same run on the CPU hides.


def unsent(monkeypatch):
    monkeypatch.setattr(LoadedBatch, "to", lambda self, device: self)


def one_generator(monkeypatch):
    monkeypatch.setattr(RobustLoss, "_generators", lambda *_: (torch.Generator(), torch.Generator()))


def labels_left_behind(monkeypatch):
    plain = adversarial.loss
    monkeypatch.setattr(
        adversarial, "loss", lambda self, logits, labels, clean: plain(self, logits, labels.cpu(), clean)
    )


def changed_loss(change):
    def plant(monkeypatch):
        plain = adversarial.loss
        monkeypatch.setattr(adversarial, "loss", lambda self, *given: change(plain(self, *given)))

    return plant


PLANTS = {
    "batch not sent": (unsent, "_to_copy"),
    "generator of the CPU": (one_generator, "_to_copy"),
    "labels on the CPU": (labels_left_behind, "two devices"),
    "item in a step": (changed_loss(lambda losses: losses / losses.detach().max().item()), "_local_scalar_dense"),
    "mask of the CPU": (changed_loss(lambda losses: losses[torch.ones(len(losses), dtype=torch.bool)]), "index"),
    "mask": (changed_loss(lambda losses: losses[losses > -1]), "index"),
    "rows counted": (changed_loss(lambda losses: losses[(losses > -1).nonzero().flatten()]), "nonzero"),
    "through numpy": (changed_loss(lambda losses: losses * torch.as_tensor(losses.detach().cpu().numpy()).mean()), "_to_copy"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_planted_faults_are_found(monkeypatch, step_waits, name):
    plant, found = PLANTS[name]
    hardened(loader=DataLoader(digits(60), 20), tasks=None)
    assert not step_waits
    plant(monkeypatch)
    message = ""
    try:
        hardened(loader=DataLoader(digits(60), 20), tasks=None)
    except RuntimeError as error:
        message = str(error)
    assert found in message or found in {wait.operation for wait in step_waits}
