"""The checks of sanity fire on models that cannot be measured, and are silent on an honest one."""

import re
from functools import partial

import pytest
import torch
from handwritten import digits, hardened, loader
from tables import unpadded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.evaluations._sanity_sample import Finding
from robusttune.evaluations.sanity import sanity

CHECKS = {
    "eval mode",
    "random outputs",
    "batch dependent outputs",
    "softmax outputs",
    "zero gradients",
    "optimisation at inference",
    "iterative beats single step",
    "more steps change little",
    "success grows with eps",
    "unbounded attack succeeds",
    "gradient free attacks find no more",
    "transfer finds no more",
}


def fired(model, **settings):
    """The checks that find something, with what they say."""
    which = partial(sanity, images=120, steps=20)
    settings = {"norm": "linf", "eps": 0.15, **settings}
    records = robusttune.evaluate(model, loader(160, 40), which, progress=False, **settings)
    assert {record.metric for record in records} == CHECKS
    assert all(record.images == 120 for record in records)
    return {record.metric: record.setting["says"] for record in records if not record.setting["ok"]}


def ordinary():
    """A net trained on the same digits without an adversary."""
    torch.manual_seed(0)
    images, labels = digits()
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(144, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for step in range(150):
        rows = torch.randint(300, len(images), (128,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model.eval()


class Around(nn.Module):
    """The honest model with something before or after it."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.inner = hardened()
        self.before, self.after = before, after

    def forward(self, images):
        logits = self.inner(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


def quantised(images):
    return (images * 3).round() / 3


def optimising(images):
    """Images moved a little against their own gradient, as purifying defences do."""
    with torch.enable_grad():
        moved = images.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(moved.square().sum(), moved)
    return images - 1e-3 * gradient


def fragile(images):
    """A gradient where all values are among the 17 that digits have, and none at a random start."""
    levels = 16 * images.detach()
    exact = (levels - levels.round()).abs().flatten(1).amax(1) < 1e-4
    return torch.where(exact[:, None, None, None], images, images.detach())


def gated(images):
    """A gradient at every other point of the ball, so that success depends on the start."""
    open_ = (9973 * images.detach().flatten(1).sum(1)).frac() < 0.5
    return torch.where(open_[:, None, None, None], images, images.detach())


class Restoring(nn.Module):
    """Answers an image that is far from all it has stored as it answers the nearest of those."""

    def __init__(self):
        super().__init__()
        self.inner = hardened()
        self.register_buffer("stored", digits()[0][:200])

    def forward(self, images):
        distance, nearest = (images[:, None] - self.stored).abs().flatten(2).amax(2).min(1)
        return self.inner(torch.where((distance > 0.2)[:, None, None, None], self.stored[nearest], images))


class Stubborn(nn.Dropout):
    """Dropout that stays on."""

    def train(self, mode=True):
        return super().train(True)


@pytest.mark.sample(1)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_honest_model_raises_no_doubt(norm):
    assert not fired(hardened(), norm=norm, eps={"linf": 0.15, "l2": 0.8}[norm])


@pytest.mark.slow
def test_an_undefended_model_raises_no_doubt_but_for_gradients_that_vanish_where_it_is_sure():
    assert set(fired(ordinary())) <= {"zero gradients"}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("model", "check", "says"),
    [
        (lambda: Around(before=quantised), "zero gradients", "such attacks are blind"),
        (lambda: Around(before=quantised), "unbounded attack succeeds", "attacks fail"),
        (lambda: Around(before=quantised), "transfer finds no more", "withstand its own gradients"),
        (lambda: Around(after=lambda logits: logits * 1e4), "zero gradients", "gradient of the cross-entropy is zero"),
        (lambda: Around(before=Stubborn(0.3)), "random outputs", "other answers each time"),
        (lambda: Around(before=Stubborn(0.3)), "eval mode", "before"),
        (lambda: Around(after=lambda logits: logits.softmax(1)), "softmax outputs", "without its softmax"),
        (
            lambda: Around(before=lambda x: x + 0.1 * torch.randn_like(x)),
            "random outputs",
            "accuracies are of one draw",
        ),
        (lambda: Around(before=optimising), "optimisation at inference", "computes gradients while it answers"),
        (lambda: Around(before=lambda x: x - x.mean(0) + 0.3), "batch dependent outputs", "other images of its batch"),
        (lambda: Around(before=fragile), "iterative beats single step", "a single step finds more than 20 do"),
        (Restoring, "success grows with eps", "a larger radius leaves more images right"),
    ],
    ids=[
        "quantised-gradients",
        "quantised-unbounded",
        "quantised-transfer",
        "temperature",
        "dropout",
        "dropout-mode",
        "softmax",
        "noise",
        "optimising",
        "batch",
        "fragile",
        "restoring",
    ],
)
@pytest.mark.filterwarnings("ignore:the model returns probabilities")
def test_a_model_that_cannot_be_measured_raises_a_doubt(model, check, says):
    found = fired(model())
    assert check in found
    assert says in found[check]


@pytest.mark.slow
def test_an_attack_whose_success_depends_on_its_start_raises_a_doubt():
    found = fired(Around(before=gated), eps=0.3)
    assert "times as many steps from another start take" in found["more steps change little"]


@pytest.mark.slow
@pytest.mark.skipif(not __import__("importlib.util").util.find_spec("torchattacks"), reason="needs Square")
def test_masked_gradients_are_found_by_an_attack_without_them():
    found = fired(Around(before=quantised))
    assert "Square, which sees no gradient" in found["gradient free attacks find no more"]


@pytest.mark.slow
def test_a_model_that_changes_while_it_answers():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = hardened()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images):
            self.seen += 1
            return self.inner(images)

    assert "changes its weights or buffers" in fired(Counting())["optimisation at inference"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the model returns probabilities")
def test_doubts_are_told_and_the_model_is_given_back_as_found(caplog):
    model = Around(after=lambda logits: logits.softmax(1)).train()
    plain = torch.autograd.grad, torch.autograd.backward
    with caplog.at_level("INFO", "robusttune"):
        fired(model)
    assert "sanity, softmax outputs: the model returns probabilities" in caplog.text
    assert (torch.autograd.grad, torch.autograd.backward) == plain
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_findings():
    which = partial(sanity, images=60, steps=5)
    runs = [robusttune.evaluate(hardened(), loader(), which, eps=0.15, progress=False, seed=2) for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_sanity_beside_other_evaluations_leaves_single_images_known():
    records = robusttune.evaluate(hardened(), loader(), [partial(sanity, images=20, steps=2), "clean"], progress=False)
    assert len(records.hashes) == 60
    assert records.where("clean")[0].right is not None


def test_images_sorted_by_class_are_drawn_from_all_classes(monkeypatch):
    images, labels = digits()
    order = labels.argsort()
    seen = []

    def look(sample):
        seen.append(sample.labels)
        return Finding(0.0, True, "")

    monkeypatch.setattr("robusttune.evaluations.sanity.CHECKS", [look])
    batches = DataLoader(TensorDataset(images[order], labels[order]), 100)
    robusttune.evaluate(hardened(), batches, partial(sanity, images=64), progress=False)
    assert len(seen[0]) == 64
    assert seen[0].unique().tolist() == list(range(10))


def test_no_images():
    with pytest.raises(ValueError, match="empty"):
        robusttune.evaluate(hardened(), [], "sanity", progress=False)


@pytest.mark.slow
def test_the_report_begins_with_what_speaks_against_it_and_ends_with_the_cost(tmp_path):
    runs = {
        name: robusttune.evaluate(
            model, loader(), ["clean", partial(sanity, images=40, steps=5)], progress=False, eps=0.15
        )
        for name, model in {"honest": hardened(), "quantised": Around(before=quantised)}.items()
    }
    text = unpadded(robusttune.report(runs, tmp_path).read_text(encoding="utf-8"))
    titles = re.findall(r"^(?:## |<details><summary>)([^<\n]+)", text, re.MULTILINE)
    assert titles == ["Verdict", "Sanity", "Setup", "Limits", "Summary", "Cost", "Words"]
    assert "**Do not rely on this before it is cleared up: “quantised” fails" in text
    assert "**quantised: do not rely on these numbers" in text
    assert "- zero gradients: the gradient of the" in text
    assert "| clean, 60 images |" in text
    assert text.count("zero gradients") == 1
    assert runs["honest"].facts["model"] in text
    assert "| honest | clean |" in text
