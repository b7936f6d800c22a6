"""Formats of exported models: how each is written, and how it is run."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from robusttune.model.features import logits_of

# Inputs (N,C,H,W) of the model, on the CPU -> logits (N,K).
Runner: TypeAlias = Callable[[Tensor], Tensor]
IMAGES, LOGITS = "images", "logits"
MOST = 2**31 - 2**24  # bytes of weights in one ONNX file, which protobuf limits to 2 GiB
# The exporter that torch 2.6 has over torch.export knows no batch norm together with current versions of onnxscript.
THROUGH_EXPORT = tuple(int(part) for part in torch.__version__.split(".")[:2]) > (2, 6)
INSTALL = "pip install 'robusttune[onnx]'"


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        ending: the ending of its files.
        write: (model, inputs, path, batch) -> the way in which it was written, in words; batch is None for any batch size.
        read: path -> a function that runs the export on the CPU.
        packages: the packages that it needs beside torch.
        exact: the export computes the same numbers, but for rounding.
    """

    ending: str
    write: Callable[[nn.Module, Tensor, Path, int | None], str]
    read: Callable[[Path], Runner]
    packages: tuple[str, ...] = ()
    exact: bool = True


def check_installed(name: str) -> None:
    """Raise an ImportError if a format needs a package that is not installed."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise ImportError(f"the format {name!r} needs {' and '.join(missing)}: {INSTALL}")


class LogitsAlone(nn.Module):
    """A model whose output is its logits (N,K), where it returns them in a dict or a tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.model(images))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep other packages' warnings away inside this context, and what they add to the root logger."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.addHandler(logging.NullHandler())  # without a handler, logging.warning would install one
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def _sizes(batch: int | None) -> tuple[dict[int, object], ...] | None:
    """Return torch.export's word for a batch of any size; None for the size of the example."""
    return None if batch is not None else ({0: torch.export.Dim("batch", min=1)},)


def _write_program(model: nn.Module, inputs: Tensor, path: Path, batch: int | None) -> str:
    torch.export.save(torch.export.export(model, (inputs,), dynamic_shapes=_sizes(batch)), path)
    return "torch.export.export"


def _read_program(path: Path) -> Runner:
    with quiet():
        module: Runner = torch.export.load(path).module()
    return module


def _write_onnx(model: nn.Module, inputs: Tensor, path: Path, batch: int | None) -> str:
    size = sum(each.nbytes for each in model.state_dict().values() if isinstance(each, Tensor))
    if size > MOST:
        raise ValueError(f"its weights take {size / 2**30:.1f} GiB, and one ONNX file holds 2 GiB")
    shapes: dict[str, object] = {"dynamic_shapes": _sizes(batch)}
    if not THROUGH_EXPORT:
        shapes = {"dynamic_axes": None if batch is not None else {IMAGES: {0: "batch"}, LOGITS: {0: "batch"}}}
    torch.onnx.export(
        model,
        (inputs,),
        path,
        dynamo=THROUGH_EXPORT,
        external_data=False,
        input_names=[IMAGES],
        output_names=[LOGITS],
        verbose=False,
        **shapes,  # type: ignore[arg-type]
    )
    return f"torch.onnx.export(dynamo={THROUGH_EXPORT})"


def _read_onnx(path: Path) -> Runner:
    import onnxruntime  # here, as it is an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {IMAGES: inputs.numpy()})[0])

    return run


def _write_int8(model: nn.Module, inputs: Tensor, path: Path, batch: int | None) -> str:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".float.onnx")
    way = _write_onnx(model, inputs, whole, batch)
    # Unsigned weights: ONNX Runtime has no convolution of signed ones for the CPU.
    quantize_dynamic(whole, path, weight_type=QuantType.QUInt8)
    whole.unlink()
    return f"{way}, then onnxruntime.quantization.quantize_dynamic"


def _write_script(model: nn.Module, inputs: Tensor, path: Path, batch: int | None) -> str:
    """Script the model, which keeps its branches; trace it where TorchScript does not know a part of it."""
    try:
        script, way = torch.jit.script(model), "torch.jit.script"
    except Exception:  # whatever the compiler raises for Python that it does not know
        script, way = torch.jit.trace(model, inputs), "torch.jit.trace"  # type: ignore[no-untyped-call]
    torch.jit.save(script, path)
    return way


def _read_script(path: Path) -> Runner:
    with quiet():
        script: Runner = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return script


ONNX = ("onnx", "onnxruntime", *(("onnxscript",) if THROUGH_EXPORT else ()))
FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", _write_onnx, _read_onnx, ONNX),
    "torch.export": Format(".pt2", _write_program, _read_program),
    "torchscript": Format(".ts", _write_script, _read_script),
    "int8": Format(".int8.onnx", _write_int8, _read_onnx, ONNX, exact=False),
}
