"""Self-training: images without labels get those of the model as it was, or of another teacher."""

import copy
import io
import json
import re
from functools import partial

import pytest
import torch
from short_runs import a_model, digits, hardened, same, weights_of
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import robusttune
from robusttune import RobustLoss, ThreatModel, estimate, plugins, replay
from robusttune.integration.state import Resumable
from robusttune.run.provenance import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy", "ignore:no weight of the model has changed")
FORTY = 40


def labelled(count=FORTY):
    return DataLoader(Subset(digits(), range(count)), 20, shuffle=True)


def unlabelled(count=120):
    return DataLoader(TensorDataset(digits().tensors[0][FORTY : FORTY + count]), 30, shuffle=True)


def trained_model():
    """A model that knows the digits, so that its answers are worth learning from."""
    model = a_model()
    images, labels = digits().tensors
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(20):
        for rows in torch.arange(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


class RandomlyTurned(TensorDataset):
    """Images that are mirrored or not, and a little brighter, each time they are read."""

    def __getitem__(self, row):
        (image,) = super().__getitem__(row)
        return (image if torch.rand(()) < 0.5 else image.flip(-1)) * (0.9 + 0.1 * torch.rand(()))


def self_trained(model=None, **settings):
    return hardened(model, labelled(), **{"unlabeled_loader": unlabelled(), "tasks": None, **settings})


def answers_of(model):
    frozen = copy.deepcopy(model).eval()
    return lambda images: frozen(images).detach()


def test_teacher_labels_are_labels():
    """Self-training is training on the teacher's labels: written by hand, it gives the same weights."""
    model, images = a_model(), digits().tensors[0][FORTY:160]
    known, truth = (part[:FORTY] for part in digits().tensors)
    guessed = copy.deepcopy(model).eval()(images).argmax(1)
    parts = [(known[start : start + 10], truth[start : start + 10]) for start in range(0, 40, 10)]
    by_hand = [
        (torch.cat([few, images[30 * row : 30 * row + 30]]), torch.cat([truths, guessed[30 * row : 30 * row + 30]]))
        for row, (few, truths) in enumerate(parts)
    ]
    settings = {"tasks": None, "epochs": 2}
    expected = hardened(copy.deepcopy(model), by_hand, **settings)
    # Batches of 40 images, a quarter of them labelled.
    mixed = hardened(model, [(known, truth)], unlabeled_loader=[images], **settings)
    assert same(weights_of(expected), weights_of(mixed))


def test_the_teacher_is_the_model_as_it_was():
    before = trained_model()
    by_self = weights_of(self_trained(copy.deepcopy(before)))
    by_module = weights_of(self_trained(copy.deepcopy(before), teacher=copy.deepcopy(before)))
    by_function = weights_of(self_trained(copy.deepcopy(before), teacher=answers_of(before)))
    itself = copy.deepcopy(before)
    by_itself = weights_of(self_trained(itself, teacher=itself))
    assert same(by_self, by_module)
    assert same(by_self, by_function)
    assert same(by_self, by_itself)
    assert not same(by_self, weights_of(self_trained(copy.deepcopy(before), teacher=a_model(seed=1))))


@pytest.mark.sample(8)
@pytest.mark.parametrize(
    "settings",
    [
        *({"objective": name} for name in plugins.names("objectives")),
        {"attack": "apgd"},
        {"attack": "nfgsm", "steps": None},
        {"norm": "linf", "eps": 0.1},
        {"preset": "fast", "steps": None},
        {"tasks": {"rotation": 0.5, "jigsaw": 0.5}},
        {"tasks": {"patch_rotation": 0.5}, "attack_tasks": "none"},
        {"awp": 0.01},
        {"accumulate": 3},
        {"update_batch": 10},
        {"micro_batch": 7},
        {"precision": "bf16"},
        {"augment": "standard"},
        {"ema": 0.9, "clip_grad": 1.0, "optimizer": "adamw"},
        {"unlabeled_share": 0.5},
        {"channels_last": True},
        {"tune": True},
        {"checkpointing": True},
    ],
    ids=str,
)
def test_self_training_works_with(settings):
    model, first = a_model(), None
    modules, keys = list(model.modules()), list(model.state_dict())
    facts = []
    self_trained(model, on_epoch=facts.append, **settings)
    assert facts[0]["step"] == (3 if settings.get("accumulate") else 16 if settings.get("update_batch") else 8)
    assert list(model.modules()) == modules
    assert list(model.state_dict()) == keys
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    first = weights_of(self_trained(a_model(), **settings))
    assert same(first, weights_of(model))


def test_a_users_teacher_stays_as_it_was():
    teacher = a_model(seed=1).train()
    teacher[1].eval()
    before, modes = weights_of(teacher), [module.training for module in teacher.modules()]
    self_trained(teacher=teacher)
    assert same(before, weights_of(teacher))
    assert [module.training for module in teacher.modules()] == modes
    assert all(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.sample(1)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_users_teacher_is_as_it_was_after_a_failure(error):
    teacher = a_model(seed=1).train()
    teacher[1].eval()
    teacher[3].requires_grad_(False)
    teacher(digits().tensors[0][:4]).sum().backward()
    answered = []
    handle = teacher[5].register_forward_hook(lambda *_: answered.append(teacher.training))

    def state():
        modules, parameters = list(teacher.modules()), list(teacher.parameters())
        hooks = [list(each) for module in modules for each in (module._forward_hooks, module._forward_pre_hooks)]
        return [module.training for module in modules], hooks, [each.requires_grad for each in parameters]

    before, weights, grads = state(), weights_of(teacher), [each.grad for each in teacher.parameters()]
    values = [None if grad is None else grad.clone() for grad in grads]

    class Failing(list):
        """Batches of which the second ends the run in the second epoch."""

        def __iter__(self):
            yield self[0]
            if epochs:
                raise error("mine")
            yield self[1]

    images, epochs = digits().tensors[0], []
    with pytest.raises(error, match="mine"):
        self_trained(
            teacher=teacher, unlabeled_loader=Failing([images[40:70], images[70:100]]), epochs=3, on_epoch=epochs.append
        )
    assert (len(epochs), state()) == (1, before)
    assert same(weights, weights_of(teacher))
    for parameter, grad, value in zip(teacher.parameters(), grads, values, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, value)
    assert answered
    assert not any(answered)  # in eval mode inside
    handle.remove()


def noisy(images):
    return (images + 0.2 * torch.rand_like(images)).clamp(0, 1)


@pytest.mark.parametrize("augment", ["standard", noisy])
def test_the_teacher_sees_pixels_before_augmentation(augment):
    images, labels = (part[:160] for part in digits().tensors)
    known = {image.numpy().tobytes() for image in images}

    def teacher(batch):
        assert known.issuperset(image.numpy().tobytes() for image in batch)
        return nn.functional.one_hot(torch.zeros(len(batch), dtype=torch.long), 10).float()

    settings = {"teacher": teacher, "max_steps": 2}
    plain = weights_of(self_trained(augment="none", **settings))
    assert not same(plain, weights_of(self_trained(augment=augment, **settings)))
    losses = [
        RobustLoss(a_model(), ThreatModel("l2", 0.3), tasks=None, augment=each, teacher=teacher, images=images[:2])
        for each in ("none", augment)
    ]
    out = [each(images[:20], labels[:20], unlabeled=images[20:40])["loss"] for each in losses]
    assert not torch.equal(*out)


def test_images_alone_are_labelled_by_the_model():
    before = trained_model()
    images = digits().tensors[0]
    alone = DataLoader(TensorDataset(images), 40)
    told = before(images).argmax(1)
    by_hand = DataLoader(TensorDataset(images, told), 40)
    assert same(
        weights_of(hardened(copy.deepcopy(before), alone)), weights_of(hardened(copy.deepcopy(before), by_hand))
    )
    for form in ([images[:40]], [(images[:40],)], [{"pixel_values": images[:40]}]):
        hardened(a_model(), form)


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # the model learns nothing here
def test_epochs_on_images_alone_are_judged_by_agreement(caplog):
    caplog.set_level("INFO", "robusttune")
    before, images = trained_model(), digits(1000).tensors[0]
    facts = []
    loader = DataLoader(TensorDataset(images), 40)
    hardened(copy.deepcopy(before), loader, on_epoch=facts.append, lr=0.0, ema=0, tasks=None)
    assert "50 of the training images, to choose the epoch by agreement with the teacher" in caplog.text
    assert facts[0]["held-out clean"] == pytest.approx(1.0, abs=0.05)  # running statistics alone have moved
    assert "100.0% agree with the teacher, and" in caplog.text
    others = digits(1100).tensors[0][1000:]
    few = DataLoader(TensorDataset(others), 50)
    hardened(copy.deepcopy(before), loader, val_loader=few, on_epoch=facts.append, lr=0.0, ema=0, tasks=None)
    assert facts.pop()["held-out clean"] == pytest.approx(1.0, abs=0.05)
    truth = DataLoader(TensorDataset(others, (before(others).argmax(1) + 1) % 10), 50)
    hardened(copy.deepcopy(before), loader, val_loader=truth, on_epoch=facts.append, lr=0.0, ema=0, tasks=None)
    assert facts[1]["held-out clean"] == pytest.approx(0.0, abs=0.05)


def test_runs_resume_exactly(tmp_path):
    class Stopped(Exception):
        pass

    def stop(facts):
        raise Stopped

    settings = {"epochs": 3, "checkpoint_every": 3}
    whole = weights_of(self_trained(out=tmp_path / "whole", **settings))
    steps = []

    class Breaking(list):
        """Batches of which one, in the second epoch, ends the run."""

        def __iter__(self):
            for batch in super().__iter__():
                steps.append(1)
                if len(steps) == 11:
                    raise Stopped
                yield batch

    more = [digits().tensors[0][FORTY + 30 * row : FORTY + 30 * row + 30] for row in range(4)]
    whole = weights_of(self_trained(unlabeled_loader=more, out=tmp_path / "again", **settings))
    with pytest.raises(Stopped):
        self_trained(unlabeled_loader=Breaking(more), out=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "state.pt").exists()
    resumed = self_trained(unlabeled_loader=more, out=tmp_path / "run", resume=True, **settings)
    assert same(whole, weights_of(resumed))


def test_a_teacher_that_changed_is_refused(tmp_path):
    self_trained(out=tmp_path / "self")
    facts = json.loads((tmp_path / "self" / "run.json").read_text())
    assert facts["teacher"]["name"] == "self"
    with pytest.raises(ValueError, match=r"the teacher of the run in .* was another one.*at the start of that run"):
        self_trained(a_model(seed=1), out=tmp_path / "self", resume=True)
    for name, first, other in (
        ("module", a_model(seed=1), a_model(seed=2)),
        ("function", answers_of(a_model(seed=1)), answers_of(a_model(seed=2))),
    ):
        self_trained(out=tmp_path / name, teacher=first)
        with pytest.raises(ValueError, match="the teacher of the run"):
            self_trained(out=tmp_path / name, teacher=other, resume=True)


def test_runs_repeat(tmp_path):
    before = a_model()
    self_trained(copy.deepcopy(before), out=tmp_path / "self")
    more = {"unlabeled_loader": unlabelled()}
    assert replay(tmp_path / "self", before, labelled(), **more).same
    self_trained(copy.deepcopy(before), out=tmp_path / "pretext", tasks={"rotation": 1.0}, teacher=None)
    assert replay(tmp_path / "pretext", before, labelled(), **more).same


@pytest.mark.slow
def test_cost_of_a_teacher_is_estimated():
    alone = estimate(a_model(), labelled(160), norm="l2", steps=2, tasks=None, epochs=1)
    mixed = estimate(a_model(), labelled(), norm="l2", steps=2, tasks=None, epochs=1, unlabeled_loader=unlabelled())
    assert mixed.steps == alone.steps == 8
    assert "teacher" not in mixed.passes  # the labels of the look before the run are remembered
    turned = DataLoader(RandomlyTurned(digits().tensors[0][FORTY:160]), 30)
    anew = estimate(a_model(), labelled(), norm="l2", steps=2, tasks=None, epochs=1, unlabeled_loader=turned)
    assert anew.passes["teacher"].forward == 120
    assert mixed.passes["update"] == alone.passes["update"]


def test_unfit_teachers_are_refused():
    model = a_model()
    wrapped = nn.Sequential(model)
    for teacher, match in (
        ("myself", "teacher is 'myself', but it must be 'self'"),
        (3, "teacher is a int, but it must be 'self'"),
        (wrapped, "the teacher shares weights with the model.*pass teacher='self'"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
            r"returned logits of shape \(20, 7\).*the model has 10 classes",
        ),
        (lambda images: images, "the model returned"),
    ):
        with pytest.raises(ValueError, match=match):
            self_trained(model, teacher=teacher)
    with pytest.raises(
        ValueError, match="unlabeled_share is 1, but a share of each batch, above 0 and below 1, is needed"
    ):
        self_trained(model, unlabeled_share=1)
    with pytest.raises(ValueError, match="the loader is an iterator"):
        hardened(model, iter(labelled()), unlabeled_loader=unlabelled())
    with pytest.raises(ValueError, match="the loader has no labels, so that unlabeled_loader= adds nothing new"):
        hardened(model, [digits(20).tensors[0]], unlabeled_loader=unlabelled())
    with pytest.raises(ValueError, match=r"but \(images, labels\) or a dict of both is needed"):
        hardened(model, [digits(20).tensors[0]], teacher=None)


def test_a_model_that_cannot_be_copied_needs_a_teacher():
    class Uncopied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = a_model()

        def __deepcopy__(self, memo):
            raise TypeError("no copies")

        def forward(self, images):
            return self.inner(images)

    with pytest.raises(ValueError, match=r"the model cannot be copied \(TypeError: no copies\).*pass teacher="):
        self_trained(Uncopied())
    self_trained(Uncopied(), teacher=a_model(seed=1))


def test_images_without_labels_join_a_call_of_robust_loss():
    model = trained_model()
    images, labels = (part[:20] for part in digits().tensors)
    more = digits().tensors[0][20:50]
    told = model(more).argmax(1)
    settings = {"tasks": {"rotation": 0.5}, "images": images}
    joined = RobustLoss(model, ThreatModel("l2", 0.3), **settings)
    out = joined(images, labels, unlabeled=more)
    by_hand = RobustLoss(model, ThreatModel("l2", 0.3), **settings)
    expected = by_hand(torch.cat([images, more]), torch.cat([labels, told]))
    assert torch.equal(out["loss"], expected["loss"])
    assert out["output"].shape == (50, 10)
    assert [name for name in joined.state_dict() if "teacher" in name or "labeller" in name] == ["teacher_fingerprint"]
    assert by_hand.state_dict().keys() == joined.state_dict().keys() - {"teacher_fingerprint"}
    assert len(list(joined.parameters())) == len(list(by_hand.parameters()))
    model[0].weight.data.zero_()  # the teacher is a copy that was made at the first call
    assert torch.equal(joined.labeller.teacher(more), told)
    pretext = RobustLoss(model, ThreatModel("l2", 0.3), teacher=None, **settings)
    assert pretext(images, labels, unlabeled=more)["output"].shape == (20, 10)
    with pytest.raises(ValueError, match="teacher is 'twin', but it must be 'self'"):
        RobustLoss(model, ThreatModel("l2", 0.3), teacher="twin", **settings)


def own_loss(model, **settings):
    return RobustLoss(model, ThreatModel("l2", 0.3), tasks=None, steps=2, images=digits().tensors[0][:2], **settings)


def trained_further(robust_loss, steps):
    """Take steps of a loop of one's own, without momentum, so that the optimizer has no state."""
    optimizer, data = torch.optim.SGD(robust_loss.parameters(), 0.2), digits(80).tensors
    robust_loss.train()
    for _ in range(steps):
        optimizer.zero_grad()
        robust_loss(data[0][:20], data[1][:20], unlabeled=data[0][20:])["loss"].backward()
        optimizer.step()
    return robust_loss


LOADED = {  # a state, loaded before the model gets its trained weights
    "beside": lambda robust_loss, state: (
        Resumable(robust_loss).load_state_dict(state["beside"]),
        robust_loss.model.load_state_dict(state["model"]),
    ),
    "whole": lambda robust_loss, state: robust_loss.load_state_dict(state["whole"]),
    "wrapped": lambda robust_loss, state: nn.ModuleDict({"inner": robust_loss}).load_state_dict(state["wrapped"]),
}


def state_of(robust_loss):
    """All that a loop may save of a RobustLoss, as it comes back from a file."""
    held, wrapped = io.BytesIO(), nn.ModuleDict({"inner": robust_loss})
    whole = {
        "whole": robust_loss.state_dict(),
        "wrapped": wrapped.state_dict(),
        "model": robust_loss.model.state_dict(),
    }
    torch.save({**whole, "beside": Resumable(robust_loss).state_dict(), "calls": robust_loss.calls}, held)
    held.seek(0)
    return torch.load(held, weights_only=True)


@pytest.mark.sample(2)
@pytest.mark.parametrize("form", LOADED)
def test_a_loop_of_ones_own_goes_on_with_the_teacher_of_its_start(form):
    straight = trained_further(own_loss(a_model()), 4)
    state = state_of(trained_further(own_loss(a_model()), 2))
    resumed = own_loss(a_model())
    LOADED[form](resumed, state)
    resumed.calls = state["calls"]
    assert same(weights_of(trained_further(resumed, 2)), weights_of(straight))
    assert resumed.labeller.fingerprint == straight.labeller.fingerprint
    other = own_loss(a_model())  # what it would be with the labels of the model that is half trained
    other.model.load_state_dict(state["model"])
    other.calls = state["calls"]
    assert not same(weights_of(trained_further(other, 2).model), weights_of(straight.model))


@pytest.mark.sample(1)
@pytest.mark.parametrize("form", LOADED)
def test_a_state_of_another_teacher_is_refused(form):
    begun = trained_further(own_loss(a_model()), 2)
    state, code = state_of(begun), re.escape(fingerprint(a_model()))
    late = own_loss(copy.deepcopy(begun.model))
    match = (
        f"teacher has the fingerprint {code}, but the model as it is now has .*load this state before the model gets"
    )
    with pytest.raises(ValueError, match=match):
        LOADED[form](late, state)
    for teacher in (a_model(seed=1), answers_of(a_model())):
        with pytest.raises(ValueError, match=f"{code}, but the teacher has .*the model as it came in as teacher="):
            LOADED[form](own_loss(a_model(), teacher=teacher), state)
    LOADED[form](begun, state)  # as it was, so is its teacher
    taught = own_loss(copy.deepcopy(begun.model), teacher=a_model())
    LOADED[form](taught, state)
    assert taught.labeller.fingerprint == fingerprint(a_model())
    LOADED[form](own_loss(copy.deepcopy(begun.model), teacher=None), state)  # nothing gets a label


def test_states_without_a_teacher_are_loaded():
    state = state_of(trained_further(own_loss(a_model()), 1))
    for part, name in (
        ("whole", "teacher_fingerprint"),
        ("wrapped", "inner.teacher_fingerprint"),
        ("beside", "teacher"),
    ):
        del state[part][name]  # as earlier versions wrote it
        LOADED[part](own_loss(a_model(seed=1)), state)
    unused = own_loss(a_model())  # has labelled nothing so far
    assert "teacher_fingerprint" not in unused.state_dict()
    assert Resumable(unused).state_dict()["teacher"] is None
    resumed = own_loss(a_model(seed=1))
    LOADED["whole"](resumed, state_of(unused))
    assert resumed.labeller.teacher is None


@pytest.mark.slow
def test_a_state_of_accelerate_brings_the_teacher_back(tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def prepared():
        accelerator, robust_loss = accelerate.Accelerator(cpu=True), own_loss(a_model())
        accelerator.prepare(robust_loss, torch.optim.SGD(robust_loss.parameters(), 0.2))
        accelerator.register_for_checkpointing(Resumable(robust_loss))
        return accelerator, robust_loss

    straight = trained_further(own_loss(a_model()), 4)
    accelerator, first = prepared()
    trained_further(first, 2)
    accelerator.save_state(str(tmp_path / "state"))
    accelerator, second = prepared()
    accelerator.load_state(str(tmp_path / "state"))
    assert same(weights_of(trained_further(second, 2)), weights_of(straight))


@pytest.mark.slow
def test_self_training_beats_few_labels():
    """On real digits: 60 labels alone, and with 900 images that the model labels, at equal steps."""
    data = digits(1700)
    few, more = Subset(data, range(60)), TensorDataset(data.tensors[0][60:960])
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(30):
        for images, labels in DataLoader(few, 30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    settings = {"tasks": None, "preset": "fast", "steps": None, "lr": 0.05, "max_steps": 100, "epochs": 1000}
    alone = hardened(copy.deepcopy(model), DataLoader(few, 32, shuffle=True), **settings)
    unlabelled = DataLoader(more, 32, shuffle=True)
    taught = hardened(copy.deepcopy(model), DataLoader(few, 32, shuffle=True), unlabeled_loader=unlabelled, **settings)

    def robust(model):
        test = [(data.tensors[0][1000:], data.tensors[1][1000:])]
        sweep = partial(plugins.find("evaluations", "sweep"), norms=["l2"], eps=[0.3])
        records = robusttune.evaluate(model, test, [sweep], norm="l2", eps=0.3, progress=False)
        return next(record.value for record in records if record.setting.get("eps") == 0.3)

    assert robust(taught) > robust(alone) + 0.1


def test_images_that_come_again_are_labelled_once():
    """The look before the run labels all; with random transforms each batch is labelled anew."""
    counts = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = a_model(seed=1)

        def forward(self, images):
            counts.append(len(images))
            return self.inner(images)

    self_trained(teacher=Counted(), epochs=2)
    assert sum(counts) == 40 + 120  # those with labels, to judge the teacher, and the others once
    del counts[:]
    half = digits().tensors[0][40:160].bfloat16()
    known = digits().tensors[0][:40].bfloat16(), digits().tensors[1][:40]
    hardened(a_model(), [known], unlabeled_loader=[half], teacher=Counted(), tasks=None, epochs=2)
    assert sum(counts) == 40 + 120
    del counts[:]

    class Noisy(TensorDataset):
        def __getitem__(self, row):
            (image,) = super().__getitem__(row)
            return image + 0.001 * torch.rand(image.shape)

    noisy = DataLoader(Noisy(0.9 * digits().tensors[0][40:160]), 30)
    self_trained(teacher=Counted(), epochs=2, unlabeled_loader=noisy)
    assert sum(counts) >= 40 + 3 * 120
