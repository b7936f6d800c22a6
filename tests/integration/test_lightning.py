"""RobustTraining in real runs of Lightning: keys of checkpoints, and what users combine it with."""

import logging

import pytest
import torch
from tiny_digits import a_robust_loss, digit_loader, same_tensors, tiny_net
from torch import nn

lightning = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging  # noqa: E402

from robusttune.integration.lightning import RobustTraining  # noqa: E402
from robusttune.integration.state import Resumable  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
RATE = 0.05


class Classifier(lightning.LightningModule):
    """As a user wrote it before hearing of robustness."""

    def __init__(self, rate: float = RATE) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = tiny_net()

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        self.log("val_accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.hparams.rate, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


def trainer(*callbacks, epochs=2, **settings):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    settings = {"enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in callbacks), **settings}
    return lightning.Trainer(max_epochs=epochs, callbacks=[*callbacks], num_sanity_val_steps=0, **quiet, **settings)


def hardened(module, *callbacks, ckpt_path=None, loss=None, **settings):
    """The trainer after `fit`, and the RobustLoss."""
    robust_loss = a_robust_loss(module) if loss is None else loss
    run = trainer(RobustTraining(robust_loss), *callbacks, **settings)
    run.fit(module, digit_loader(0, 48), digit_loader(48, 64), ckpt_path=ckpt_path)
    return run, robust_loss


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of three epochs, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("straight")
    saving = ModelCheckpoint(folder, "{epoch}", monitor="val_robust_accuracy", mode="max", save_top_k=-1)
    module = Classifier()
    run, robust_loss = hardened(module, saving, epochs=3)
    return folder, module, run, robust_loss


def test_checkpoints_have_the_keys_of_the_module_and_load_as_it(straight):
    folder, module, run, _ = straight
    checkpoint = torch.load(folder / "epoch=2.ckpt", weights_only=True)
    assert list(checkpoint["state_dict"]) == list(Classifier().state_dict())
    again = Classifier.load_from_checkpoint(folder / "epoch=2.ckpt")
    assert same_tensors(again.state_dict(), module.state_dict())
    assert not same_tensors(again.state_dict(), Classifier().state_dict())
    assert 0 <= run.callback_metrics["val_robust_accuracy"] <= run.callback_metrics["val_accuracy"]
    assert {"train_loss", "train_robust", "train_rotation"} <= set(run.callback_metrics)
    assert "training_step" not in vars(module)  # its own is back


def test_a_run_that_is_resumed_ends_as_one_that_was_not_interrupted(straight):
    folder, expected, run, loss = straight
    module = Classifier()
    later, robust_loss = hardened(module, ckpt_path=folder / "epoch=0.ckpt", epochs=3)
    assert later.global_step == run.global_step == 9
    assert same_tensors(module.state_dict(), expected.state_dict())
    assert same_tensors(robust_loss.heads.state_dict(), loss.heads.state_dict())
    assert robust_loss.calls == loss.calls == 9
    theirs, ours = (each.optimizers[0].state_dict()["state"] for each in (run, later))
    assert len(ours) == len(list(robust_loss.parameters()))
    assert all(torch.equal(ours[key]["momentum_buffer"], theirs[key]["momentum_buffer"]) for key in theirs)


def test_early_stopping_reads_the_accuracy_under_attack():
    stopping = EarlyStopping("val_robust_accuracy", min_delta=2.0, patience=1, mode="max")
    run, _ = hardened(Classifier(), stopping, epochs=5)
    assert run.current_epoch == 2
    assert stopping.best_score <= 1


def test_weights_are_averaged():
    module = Classifier()
    averaging = StochasticWeightAveraging(0.02, swa_epoch_start=1)
    _, robust_loss = hardened(module, averaging, epochs=2)
    assert averaging.n_averaged == 2
    mean = averaging._average_model.state_dict()
    assert list(mean) == list(Classifier().state_dict())
    assert torch.equal(module.net[4].weight, mean["net.4.weight"])
    assert robust_loss.model is module
    assert all(torch.isfinite(each).all() for each in module.state_dict().values())


def test_bf16_mixed():
    module = Classifier()
    run, robust_loss = hardened(module, precision="bf16-mixed", epochs=1)
    assert module.net[4].weight.dtype == torch.float32
    assert run.callback_metrics["train_loss"].isfinite()
    assert not same_tensors(module.state_dict(), Classifier().state_dict())
    fresh = a_robust_loss(Classifier()).heads.state_dict()
    assert not same_tensors(robust_loss.heads.state_dict(), fresh)


def test_heads_of_weight_0_do_not_count_in_gradient_clipping():
    """The model learns as without them; the heads themselves learn, too."""
    ends = []
    for tasks in (None, {"rotation": 0.0, "jigsaw": 0.0}):
        module = Classifier()
        _, robust_loss = hardened(module, loss=a_robust_loss(module, tasks=tasks), epochs=1, gradient_clip_val=0.01)
        ends.append(module.state_dict())
        assert "configure_gradient_clipping" not in vars(module)
    assert same_tensors(*ends)
    fresh = a_robust_loss(Classifier(), tasks=tasks)
    assert not same_tensors(robust_loss.heads.state_dict(), fresh.heads.state_dict())


def test_validation_alone_and_a_part_of_the_module():
    module = Classifier()
    robust_loss = a_robust_loss(module.net)
    run = trainer(RobustTraining(robust_loss))
    (found,) = run.validate(module, digit_loader(48, 64), verbose=False)
    images, labels = next(iter(digit_loader(48, 64)))
    expected = (robust_loss.eval()(images, labels)["output"].argmax(1) == labels).float().mean()
    assert found["val_robust_accuracy"] == pytest.approx(float(expected))


class Manual(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Holding(Classifier):
    def __init__(self):
        super().__init__()
        self.robust = a_robust_loss(self.net)


@pytest.mark.parametrize(
    ("module", "loss", "message"),
    [
        (Classifier, lambda _: a_robust_loss(tiny_net()), r"not in the LightningModule: make RobustLoss\(module, …\)"),
        (Holding, lambda module: module.robust, "an attribute of the LightningModule.*keep it outside"),
        (Manual, a_robust_loss, "optimizes manually.*call a RobustLoss of your own in that step"),
    ],
)
def test_modules_that_do_not_fit_are_refused(module, loss, message):
    module = module()
    with pytest.raises(ValueError, match=message):
        hardened(module, loss=loss(module))


def test_strategies_that_share_out_weights_are_refused():
    from lightning.pytorch.strategies import FSDPStrategy

    class Run:
        strategy = FSDPStrategy()

    module = Classifier()
    with pytest.raises(
        ValueError, match=r"FSDPStrategy splits the weights among processes.*use strategy='ddp' or one device"
    ):
        RobustTraining(a_robust_loss(module)).setup(Run(), module, "fit")


class Failing(Classifier):
    def on_train_batch_end(self, *arguments):
        raise ZeroDivisionError


def test_a_module_gets_its_own_step_back_after_an_error():
    module = Failing()
    with pytest.raises(ZeroDivisionError):
        hardened(module)
    assert "training_step" not in vars(module)


def test_a_step_that_was_set_on_the_module_itself_comes_back():
    module = Classifier()
    step = module.training_step = Classifier.training_step.__get__(module)
    hardened(module, epochs=1)
    assert vars(module)["training_step"] is step


@pytest.mark.slow
def test_two_processes_train_the_same_heads_and_weights(tmp_path):
    module = Classifier()
    robust_loss = a_robust_loss(module)
    run = trainer(
        RobustTraining(robust_loss, validate=False),
        _Kept(robust_loss, tmp_path),
        epochs=1,
        devices=2,
        strategy="ddp_fork",
    )
    run.fit(module, digit_loader(0, 64))
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for part in ("model", "heads"):
        assert same_tensors(states[0][part], states[1][part])
        assert not same_tensors(
            states[0][part],
            {"model": Classifier().net.state_dict(), "heads": a_robust_loss(Classifier()).heads.state_dict()}[part],
        )


class _Kept(lightning.Callback):
    """Writes what each process has at the end."""

    def __init__(self, robust_loss, folder):
        self.robust_loss, self.folder = robust_loss, folder

    def on_train_end(self, trainer, pl_module):
        # Running statistics are each process's own.
        net = {name: each.data for name, each in pl_module.net.named_parameters()}
        heads = Resumable(self.robust_loss).state_dict()["heads"]
        torch.save({"model": net, "heads": heads}, self.folder / f"{trainer.global_rank}.pt")
