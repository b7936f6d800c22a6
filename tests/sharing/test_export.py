"""An export is compared with the model before it counts: logits, answers, and accuracy under attacks that are transferred."""

import dataclasses
import errno
import hashlib
import json

import pytest
import torch
from torch import nn

import robusttune
from robusttune.sharing import formats
from robusttune.sharing.formats import FORMATS
from robusttune.sharing.written import write_export

QUICK = {"steps": 3, "progress": False}
SLOW = ("onnx", "int8", "torch.export")


def facts_of(path):
    return json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))


def small(bias=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4))
    nn.init.constant_(model[-1].bias, bias)
    return model


@pytest.mark.parametrize("to", [pytest.param(to, marks=pytest.mark.slow if to in SLOW else ()) for to in FORMATS])
def test_an_export_answers_as_the_model_and_says_how_it_does_under_attack(run, loader, tmp_path, to):
    for package in FORMATS[to].packages:
        pytest.importorskip(package)
    path = tmp_path / "made" / f"digits{FORMATS[to].ending}"
    exported = robusttune.export(run, path, to=to, loader=loader, **QUICK)
    assert exported.path == path
    found = exported.differences
    assert found.images == 3 * 64  # digits unchanged and attacked by two losses
    assert found.relative < (1e-4 if FORMATS[to].exact else 0.2)
    assert found.agreement > 0.9
    clean, exported_clean, robust, transferred = exported.records
    assert clean.value == robusttune.Records.load(run)[0].value
    assert abs(exported_clean.value - clean.value) < (1e-9 if FORMATS[to].exact else 0.1)
    assert robust.value < clean.value
    assert abs(transferred.value - robust.value) < (1e-9 if FORMATS[to].exact else 0.1)
    assert (transferred.setting["norm"], transferred.setting["eps"]) == ("linf", 4 / 255)
    assert "upper bound of its robust accuracy" in str(exported)
    facts = facts_of(path)
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["takes"] == "images of shape (N, 3, 16, 16), float32: pixels on [0, 1]"
    assert facts["classes"][3] == "three"
    assert "upper bound" in facts["note"]
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.json"]
    answers = FORMATS[to].read(path)(next(iter(loader))[0])
    assert answers.shape == (32, 4)


def test_an_export_takes_normalised_images_where_the_model_does(tmp_path):
    robusttune.export(small(), tmp_path / "a.ts", to="torchscript", mean=0.5, std=0.25)
    facts = facts_of(tmp_path / "a.ts")
    assert "(pixels on [0, 1] - mean) / std, with mean (0.5) and std (0.25)" in facts["takes"]
    assert (facts["mean"], facts["std"]) == ([0.5], [0.25])
    robusttune.export(small(), tmp_path / "b.ts", to="torchscript")
    assert "whether pixels or normalised images is not known" in facts_of(tmp_path / "b.ts")["takes"]


def test_a_model_keeps_its_mode_and_its_weights(tmp_path):
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    robusttune.export(model, tmp_path / "a.ts", to="torchscript", normalized=False)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Broken(nn.Module):
    """A model that answers otherwise once it is TorchScript."""

    def __init__(self, gap):
        super().__init__()
        self.layer, self.gap = small(), gap

    def forward(self, images):
        logits = self.layer(images)
        if torch.jit.is_scripting():
            logits = logits + self.gap * torch.arange(4.0)
        return logits


def test_an_export_that_disagrees_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(
        ValueError, match=r"disagrees with the model: the largest difference .*at most 0.001 .* no file was written"
    ):
        robusttune.export(Broken(5.0), tmp_path / "a.ts", to="torchscript")
    assert list(tmp_path.iterdir()) == []
    exported = robusttune.export(Broken(0.01), tmp_path / "a.ts", to="torchscript", tolerance=0.5)
    assert exported.differences.largest == pytest.approx(0.03, abs=1e-4)
    with pytest.raises(ValueError, match=r"but the same answers on 100.0% are asked for"):
        robusttune.export(Broken(5.0), tmp_path / "b.ts", to="torchscript", tolerance=1e9, least_agreement=1)


def test_answers_to_noise_do_not_count_where_there_are_images(loader, tmp_path):
    class OtherOnNoise(nn.Module):
        """A model whose export answers otherwise where pixels are below 0, as those of noise are."""

        def forward(self, images):
            below = images.amin((1, 2, 3), keepdim=True)[:, :, 0, 0] < 0
            side = 1.0 if torch.jit.is_scripting() else -1.0
            logits = torch.arange(4.0).expand(len(images), 4) + 0 * images.mean()
            return torch.where(below, side * logits, logits)

    arguments = {"to": "torchscript", "tolerance": 1e9, "attack": "pgd", "normalized": False, **QUICK}
    exported = robusttune.export(OtherOnNoise(), tmp_path / "a.ts", loader=loader, **arguments)
    assert (exported.differences.agreement, exported.differences.images) == (1.0, 3 * 64)
    assert exported.differences.largest > 0  # of the logits to noise, which are compared, too
    assert robusttune.export(OtherOnNoise(), tmp_path / "b.ts", **arguments).differences.agreement < 1


def test_logits_that_are_not_finite_never_pass(tmp_path):
    with pytest.raises(ValueError, match="but finite logits are needed"):
        robusttune.export(Broken(float("nan")), tmp_path / "a.ts", to="torchscript", tolerance=1e9)


class Untyped(nn.Sequential):
    """A model that no exporter takes: what it does depends on the values of its images."""

    def forward(self, images):
        return super().forward(images) if float(images.sum()) > -1e9 and isinstance(images, object) else {}[0]


def test_a_model_that_a_format_does_not_take_is_said_with_what_to_try(tmp_path):
    model = Untyped(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(ValueError, match=r"cannot be exported to 'torch.export' .* by torch .*try to='torchscript'"):
        robusttune.export(model, tmp_path / "a.pt2", to="torch.export")
    assert list(tmp_path.iterdir()) == []


def test_an_export_for_one_batch_size_is_run_for_any(tmp_path):
    exported = robusttune.export(small(), tmp_path / "a.ts", to="torchscript", batch=4)
    assert exported.differences.images == 19
    assert facts_of(tmp_path / "a.ts")["shape"][0] == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_a_short_dtype_is_compared_on_images(dtype, loader, tmp_path):
    settings = {"norm": "linf", "eps": 2 / 255, "tolerance": 0.1, **QUICK}
    done = robusttune.export(small().to(dtype), tmp_path / "a.pt2", to="torch.export", loader=loader, **settings)
    assert done.differences.agreement > 0.9
    assert done.records is not None
    assert len(done.records) == 4


def test_a_model_that_returns_a_dict_is_exported_by_its_logits(tmp_path):
    class Dict(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = small()

        def forward(self, images):
            return {"logits": self.layer(images)}

    model = Dict()
    robusttune.export(model, tmp_path / "a.ts", to="torchscript")
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(
            FORMATS["torchscript"].read(tmp_path / "a.ts")(images), model(images)["logits"], atol=1e-6
        )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"to": "coreml"}, "to is 'coreml', but it must be one of onnx, torch.export, torchscript, int8"),
        ({"batch": 0}, "batch is 0, but a whole number of at least 1"),
        ({"tolerance": -1}, "tolerance is -1, but a finite number of at least 0"),
        ({"least_agreement": 2}, "least_agreement is 2, but a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        robusttune.export(small(), tmp_path / "a.ts", **{"to": "torchscript", **arguments})


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"is there already: name another file, or pass overwrite=True"):
        robusttune.export(small(), path, to="torchscript")
    with pytest.raises(ValueError, match="is a folder: name a file in it"):
        robusttune.export(small(), tmp_path, to="torchscript")
    robusttune.export(small(), path, to="torchscript", overwrite=True)
    assert path.read_bytes()[:2] == b"PK"
    (tmp_path / "b.json").write_text("mine")
    with pytest.raises(ValueError, match=r"b.json' is there already"):
        robusttune.export(small(), tmp_path / "b", to="torchscript")
    assert (tmp_path / "b.json").read_text() == "mine"


def test_a_file_that_is_replaced_does_not_keep_the_facts_of_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "a.ts"
    robusttune.export(small(), path, to="torchscript")

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robusttune.sharing.export.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        robusttune.export(small(1.0), path, to="torchscript", overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["a.ts"]


def test_a_package_that_is_missing_is_said_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'onnx' needs onnx and onnxruntime.*pip install 'robusttune\[onnx\]'"):
        robusttune.export(small(), tmp_path / "a.onnx", to="onnx")


@pytest.mark.slow
def test_the_robust_accuracy_of_an_int8_export_is_measured_on_images_of_the_original(run, loader, tmp_path):
    pytest.importorskip("onnxruntime")
    exported = robusttune.export(run, tmp_path / "a.onnx", to="int8", loader=loader, least_agreement=0.5, **QUICK)
    assert exported.differences.relative > 0
    assert "onnxruntime.quantization.quantize_dynamic" in exported.way
    whole = sum(each.nbytes for each in robusttune.load(run).state_dict().values())
    assert (tmp_path / "a.onnx").stat().st_size < whole / 2
    with pytest.raises(ValueError, match="disagrees with the model"):
        robusttune.export(run, tmp_path / "b.onnx", to="int8", tolerance=1e-6)


def test_the_export_itself_is_measured_and_not_the_original_again(loader, tmp_path):
    path = tmp_path / "a.ts"
    settings = {"loader": loader, "normalized": False, "subset": 48, "tolerance": 1e9}
    records = robusttune.export(Broken(1e3), path, to="torchscript", **settings, **QUICK).records
    labels = torch.tensor(records.labels)
    assert {record.images for record in records} == {48}
    assert records[1].value == records[3].value == pytest.approx(float((labels == 3).float().mean()))
    assert records[0].value != records[1].value


def test_a_full_disk_is_not_taken_for_a_model_that_cannot_be_exported(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(FORMATS, "torchscript", dataclasses.replace(FORMATS["torchscript"], write=full))
    with pytest.raises(OSError, match=r"a\.ts' cannot be written \(No space left on device\): make room for it"):
        write_export(nn.Flatten(), torch.rand(2, 3, 8, 8), tmp_path / "a.ts", "torchscript", None)
