"""Models that cannot be trained are refused in words."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
from frozen_parts import model_with_frozen_parts
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.model import checks


def test_batch_norms_count_only_where_they_use_the_batch():
    model = model_with_frozen_parts()
    assert checks.has_batch_norm(model)
    model[2][1].eval()
    assert not checks.has_batch_norm(model)
    assert not checks.has_batch_norm(nn.Sequential(nn.GroupNorm(1, 4)))


def wrapped_in(kind):
    wrapper = kind.__new__(kind)
    nn.Module.__init__(wrapper)
    return wrapper


def compiled_in_place():
    model = nn.Linear(2, 2)
    model.compile()
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: "resnet18", r"the model is a str, but a torch\.nn\.Module is needed"),
        (
            lambda: wrapped_in(nn.parallel.DistributedDataParallel),
            r"wrapped in DistributedDataParallel: pass model\.module",
        ),
        (lambda: wrapped_in(nn.DataParallel), r"wrapped in DataParallel: pass model\.module"),
        (lambda: torch.compile(nn.Linear(2, 2)), r"compiled by torch\.compile: pass model\._orig_mod"),
        (compiled_in_place, r"compiled in place by model\.compile\(\)"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), r"no parameter of the model requires grad.*requires_grad_\(\)"),
        (nn.Flatten, "no parameter of the model requires grad"),
    ],
)
def test_models_that_cannot_be_borrowed_are_refused_in_words(model, message):
    with pytest.raises(ValueError, match=message):
        checks.check_model(model())


def test_a_plain_model_is_taken():
    checks.check_model(model_with_frozen_parts())


@pytest.fixture
def a_group(tmp_path):
    """A process group of this process alone, which FSDP needs."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def by_fsdp1():
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(small(), device_id=torch.device("cpu"))


def by_fsdp2():
    from torch.distributed.fsdp import fully_shard

    return fully_shard(small())


def by_deepspeed():
    """The class is known by its name; a real engine needs a compiler."""
    try:
        from deepspeed import DeepSpeedEngine
    except ImportError:
        DeepSpeedEngine = type("DeepSpeedEngine", (nn.Module,), {"forward": lambda self, images: images})
    engine = wrapped_in(DeepSpeedEngine)
    nn.Module.add_module(engine, "inside", small())
    return engine


def by_zero():
    """ZeRO-3 marks each weight that it has taken apart."""
    model = small()
    model[1].weight.ds_id = 0
    return model


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


BATCH = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
USES = {
    "RobustLoss": lambda model: RobustLoss(model, ThreatModel("linf", 0.1), images=BATCH[0]),
    "harden": lambda model: robusttune.harden(model, [BATCH], epochs=1, progress=False),
    "evaluate": lambda model: robusttune.evaluate(model, [BATCH], "clean", progress=False),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("sharded", [by_fsdp1, by_fsdp2, by_deepspeed, by_zero])
def test_models_whose_weights_are_shared_out_are_refused(sharded, use, a_group):
    name = "FSDP" if "fsdp" in sharded.__name__ else "DeepSpeed"
    with pytest.raises(
        ValueError, match=f"wrapped by {name}, which splits the weights among processes.*pass the plain module"
    ):
        USES[use](sharded())


@pytest.mark.filterwarnings("ignore")
def test_a_robust_loss_inside_fsdp_is_refused_at_its_first_call(a_group):
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def first(robust_loss, original):
        return FullyShardedDataParallel(robust_loss, device_id=torch.device("cpu"), use_orig_params=original)

    for wrap in (partial(first, original=True), partial(first, original=False), fully_shard):
        wrapped = wrap(USES["RobustLoss"](small()))
        with pytest.raises(ValueError, match="wrapped by FSDP, which splits the weights among processes"):
            wrapped(*BATCH)
