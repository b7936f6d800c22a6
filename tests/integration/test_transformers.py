"""RobustTrainer in real runs of transformers' Trainer."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_digits import SETTINGS, THREAT, digits, same_tensors
from torch.nn import functional as F

transformers = pytest.importorskip("transformers")

import launched_trainer  # noqa: E402

from robusttune import RobustLoss  # noqa: E402
from robusttune.attacks.pgd import pgd  # noqa: E402
from robusttune.integration.transformers import RobustTrainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def new_model(**sizes):
    """A ResNet of transformers for digits."""
    small = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic", **sizes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.ResNetConfig(num_channels=1, num_labels=10, downsample_in_first_stage=False, **small)
        return transformers.ResNetForImageClassification(config)


class Digits(torch.utils.data.Dataset):
    def __init__(self, first, last):
        self.images, self.labels = F.interpolate(digits(first, last)[0], 16), digits(first, last)[1]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def accuracy(outcome):
    return {"accuracy": float((outcome.predictions.argmax(1) == outcome.label_ids).mean())}


def a_trainer(folder, model=None, settings=SETTINGS, attack_evaluation=True, **arguments):
    common = {"per_device_train_batch_size": 16, "learning_rate": 1e-2, "save_strategy": "epoch", "eval_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_strategy": "no"}
    args = transformers.TrainingArguments(str(folder), **{**quiet, **common, **arguments})
    robust_loss = RobustLoss(model or new_model(), THREAT, images=Digits(0, 2).images, **settings)
    data = {"train_dataset": Digits(0, 48), "eval_dataset": Digits(48, 80), "compute_metrics": accuracy}
    return RobustTrainer(robust_loss, args, attack_evaluation=attack_evaluation, **data)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes under torchrun have found, case by case."""
    folder, script = tmp_path_factory.mktemp("two"), Path(__file__).parents[1] / "support" / "launched_trainer.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29619"]
    done = subprocess.run([*launch, str(script), str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*launched_trainer.CASES, "accumulated"])
def test_two_processes_share_the_images_and_end_in_the_same_model(case, two):
    one, other = (found[case] for found in two)
    assert same_tensors(one["state"], other["state"])
    assert one["accuracy"] == other["accuracy"]
    count = launched_trainer.IMAGES // 2  # of an epoch
    assert not set(one["rows"][:count]) & set(other["rows"][:count])
    assert len(one["rows"]) == len(other["rows"]) == launched_trainer.EPOCHS * count


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "accumulated"])
def test_two_processes_train_as_one_with_the_whole_batch(case, two, tmp_path):
    found = two[0][case]["state"]
    alone = launched_trainer.trained(tmp_path, "plain", launched_trainer.BATCH)["state"]
    start = launched_trainer.new_model("vit").state_dict()
    assert max((alone[name] - found[name]).abs().max() for name in alone) < 1e-5
    assert max((alone[f"model.{name}"] - each).abs().max() for name, each in start.items()) > 0.05


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Two epochs, with a checkpoint after each."""
    trainer = a_trainer(tmp_path_factory.mktemp("straight"), num_train_epochs=2)
    trainer.train()
    return trainer


def test_the_optimizer_of_the_arguments_trains_the_heads_too(straight):
    trained = {id(each) for group in straight.optimizer.param_groups for each in group["params"]}
    assert trained == {id(each) for each in straight.robust_loss.parameters()}
    fresh = a_trainer(straight.args.output_dir).robust_loss.state_dict()
    found = straight.robust_loss.state_dict()
    assert not any(torch.equal(found[name], each) for name, each in fresh.items() if name.endswith("weight"))


def test_from_pretrained_loads_a_checkpoint(straight):
    loaded = type(straight.model).from_pretrained(f"{straight.args.output_dir}/checkpoint-6")
    assert same_tensors(loaded.state_dict(), straight.model.state_dict())


@pytest.mark.parametrize("named", [True, False])
def test_a_run_that_is_resumed_ends_as_one_that_was_not_interrupted(named, straight, tmp_path):
    first = Path(straight.args.output_dir, "checkpoint-3")
    shutil.copytree(first, tmp_path / first.name)
    trainer = a_trainer(tmp_path, num_train_epochs=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / first.name) if named else True)
    assert trainer.state.global_step == straight.state.global_step == 6
    assert trainer.robust_loss.calls == straight.robust_loss.calls == 6
    assert same_tensors(trainer.robust_loss.state_dict(), straight.robust_loss.state_dict())


def test_the_best_model_at_the_end_comes_with_its_heads(tmp_path, caplog):
    best = {"eval_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "accuracy"}
    trainer = a_trainer(tmp_path, num_train_epochs=2, **best)
    trainer.train_dataset = trainer.eval_dataset = Digits(0, 16)
    values = iter([0.9, 0.5])
    trainer.compute_metrics = lambda outcome: {"accuracy": next(values)}
    trainer.train()
    first, last = (torch.load(tmp_path / f"checkpoint-{step}" / "robust_loss.pt")["heads"] for step in (1, 2))
    assert not same_tensors(first, last)
    assert same_tensors(trainer.robust_loss.heads.state_dict(), first)
    (tmp_path / "checkpoint-1" / "robust_loss.pt").unlink()
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    assert "the heads are those of the last step" in caplog.text


def test_a_checkpoint_without_the_heads_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"robust_loss.pt' is missing.*resume from a checkpoint that RobustTrainer wrote"
    ):
        a_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path))


def test_settings_of_a_loss_that_robust_loss_does_not_follow_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"label_smoothing_factor= and compute_loss_func= do not change.*label_smoothing=…"
    ):
        a_trainer(tmp_path, label_smoothing_factor=0.1)
    robust_loss = RobustLoss(new_model(), THREAT, images=Digits(0, 2).images, **SETTINGS)
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match=r"compute_loss_func= do not change"):
        RobustTrainer(robust_loss, args, compute_loss_func=lambda *arguments: None)


def test_evaluate_attacks_unless_told_otherwise(straight):
    attacked = straight.evaluate()
    model = straight.model.eval()
    images, labels = Digits(48, 80).images, Digits(48, 80).labels
    with torch.no_grad():
        batches = zip(images.split(8), labels.split(8), strict=True)
        robust_loss = straight.robust_loss.eval()
        right = [robust_loss(x, y)["output"].argmax(1) == y for x, y in batches]
        clean = float((model(images).logits.argmax(1) == labels).float().mean())
    assert attacked["eval_accuracy"] == pytest.approx(float(torch.cat(right).float().mean()))
    plain = a_trainer(straight.args.output_dir, model=model, attack_evaluation=False)
    assert plain.evaluate()["eval_accuracy"] == pytest.approx(clean)


def test_batches_of_transformers_are_taken_by_keyword(straight):
    robust_loss = straight.robust_loss.eval()
    batch = {"pixel_values": Digits(0, 4).images, "labels": Digits(0, 4).labels}
    assert torch.equal(robust_loss(**batch)["loss"], robust_loss(batch["pixel_values"], batch["labels"])["loss"])


def test_accumulated_batches_count_as_one(tmp_path):
    """Without random numbers and batch norm, two batches of 8 give the step of one of 16."""
    still = {"tasks": None, "attack": partial(pgd, random_start=False), "steps": 1}
    steps = {}
    for size, batches in ((16, 1), (8, 2)):
        model = new_model()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True: None
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
        trainer = a_trainer(
            tmp_path / str(size), model, still, max_steps=1, optim="sgd", save_strategy="no", **arguments
        )
        trainer.train()
        steps[size] = trainer.model.state_dict()
    first = new_model().state_dict()["classifier.1.weight"]
    moved = [steps[size]["classifier.1.weight"] - first for size in (16, 8)]
    assert moved[0].abs().max() > 1e-4
    assert (moved[0] - moved[1]).abs().max() < 1e-6


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps its precision for all of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_trains_model_and_heads(tmp_path, fresh_accelerate):
    trainer = a_trainer(tmp_path, bf16=True, max_steps=2, save_strategy="no")
    before = {name: each.clone() for name, each in trainer.robust_loss.state_dict().items()}
    trainer.train()
    assert trainer.accelerator.mixed_precision == "bf16"
    after = trainer.robust_loss.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert {"model.classifier.1.weight", "heads.layers.rotation.weight"} <= set(changed)
    assert all(each.dtype == before[name].dtype for name, each in after.items())
