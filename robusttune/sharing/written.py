"""Files of exported models: written with errors in words, and run for batches of any size."""

import errno
from pathlib import Path

import torch
from torch import Tensor, nn

from robusttune.run.writing import unwritable
from robusttune.sharing.formats import FORMATS, LogitsAlone, Runner, quiet

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # the disk's, not the exporter's
SHOWN = 300  # characters of another package's error
OTHERS = {"onnx": "torchscript", "torch.export": "torchscript", "torchscript": "torch.export", "int8": "onnx"}


def write_export(model: nn.Module, inputs: Tensor, path: Path, to: str, batch: int | None) -> str:
    """Write a model in a format; return the functions that wrote it, in words.

    Args:
        model: in eval mode, on the CPU.
        inputs: two of its inputs (2,C,H,W).
        path: the path of the file.
        to: the name of the format.
        batch: the only batch size that the export takes; None for any.

    Raises:
        ValueError: the format does not take the model; the message says what to try.
        OSError: the file cannot be written, as on a full disk.
    """
    if batch is not None:
        inputs = inputs[:1].expand(batch, -1, -1, -1).contiguous()
    with torch.no_grad():
        output = model(inputs.clone())
    wrapped = model if isinstance(output, Tensor) else LogitsAlone(model).eval()
    try:
        with quiet(), torch.no_grad():
            return FORMATS[to].write(wrapped, inputs, path, batch)
    except Exception as error:  # each exporter has errors of its own
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise unwritable(path, error) from error
        why = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        sizes = "for batches of any size" if batch is None else f"for batches of {batch}"
        fixed = "pass batch=1, which some models need, or " if batch is None else ""
        raise ValueError(
            f"the model cannot be exported to {to!r} {sizes} by torch {torch.__version__} ({type(error).__name__}: {why}): {fixed}try "
            f"to={OTHERS[to]!r}"
        ) from error


def read_export(path: Path, to: str, batch: int | None) -> Runner:
    """Load an export; return a function of inputs (N,C,H,W) on the CPU, with any N, that returns its logits (N,K).

    Raises:
        ValueError: it was written, but cannot be loaded.
    """
    try:
        run = FORMATS[to].read(path)
    except Exception as error:  # each runtime has errors of its own
        why = " ".join(str(error).split())[:SHOWN]
        raise ValueError(
            f"the export to {to!r} was written, but cannot be loaded ({type(error).__name__}: {why}): try to={OTHERS[to]!r}"
        ) from error

    def in_batches(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            if batch is None:
                return run(inputs)
            parts = [run(_filled(part, batch))[: len(part)] for part in torch.split(inputs, batch)]
        return torch.cat(parts)

    return in_batches


def _filled(inputs: Tensor, batch: int) -> Tensor:
    """Append zeros to inputs (N,C,H,W) until there are as many as the export takes."""
    return torch.cat([inputs, inputs.new_zeros(batch - len(inputs), *inputs.shape[1:])])
