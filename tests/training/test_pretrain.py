"""Pre-training of the backbone on pretext tasks alone."""

import pytest
import torch
from short_runs import a_loader, a_model, digits, hardened, same, weights_of
from torch.utils.data import DataLoader

import robusttune

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


@pytest.mark.sample(1)
@pytest.mark.parametrize("norm", [None, "l2"])
def test_pretraining_brings_the_pretext_error_down_and_leaves_the_classifier(norm):
    model = a_model()
    before = weights_of(model)
    loader = DataLoader(digits(1000), 50, shuffle=True)
    losses = []
    settings = {"epochs": 6, "steps": 2, "progress": False, "lr": 0.1, "eps": None if norm is None else 0.1}
    heads = robusttune.pretrain(
        model,
        loader,
        norm=norm,
        tasks={"rotation": 1.0},
        on_epoch=lambda facts: losses.append(facts["rotation"]),
        **settings,
    )
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(model[6].weight, before["6.weight"])
    assert not torch.equal(model[0].weight, before["0.weight"])
    assert all(parameter.requires_grad for parameter in model.parameters())
    images = digits(1797).tensors[0][1200:]
    ((part, answers),) = heads.eval().answers(images, torch.Generator().manual_seed(0))
    assert (answers.argmax(1) == part.view.targets).float().mean() > 0.5  # a guess is right in a quarter
    hardened(model, heads=heads, tasks={"rotation": 0.5})


def test_a_model_without_classifier_can_be_pretrained():
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    heads = robusttune.pretrain(model, [torch.rand(8, 1, 32, 32)] * 2, epochs=1, progress=False)
    assert heads.classifier.classes == 0
    assert heads.classifier.width == model.eval()(torch.rand(1, 1, 32, 32)).shape[1]


def test_pretraining_resumes_exactly(tmp_path):
    def run(folder, **settings):
        model = a_model()
        torch.manual_seed(1)
        robusttune.pretrain(model, a_loader(200), epochs=3, progress=False, out=folder, checkpoint_every=2, **settings)
        return weights_of(model)

    class Enough(Exception):
        pass

    def stop(facts):
        if facts["epoch"] == 2:
            raise Enough

    unbroken = run(tmp_path / "a")
    with pytest.raises(Enough):
        run(tmp_path / "b", on_epoch=stop)
    assert same(run(tmp_path / "b", resume=True), unbroken)
