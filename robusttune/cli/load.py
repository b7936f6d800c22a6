"""Models of earlier runs, made again from the run's folder."""

import warnings

from torch import nn

from robusttune.cli.labels import LIBRARIES, classes_of
from robusttune.cli.options import Sources
from robusttune.cli.runs import model_options
from robusttune.cli.sources import loader_of, named
from robusttune.model.named import model_of
from robusttune.run.about import EarlierRun, read_run
from robusttune.run.randomness import own_randomness
from robusttune.types import PathLike


def load(run: PathLike) -> nn.Module:
    """Make the model of a run again, with its best weights, in eval mode on the CPU.

    Its input is what the run trained it on: `run.json` says under "about" which size, channels, mean and std, and the names
    of the classes in the order of the outputs.

    Args:
        run: the folder of a run that names its model: one that was begun on the command line.

    Raises:
        ValueError: there is no such run, it does not name its model, or the model cannot be made here.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load(folder)
        Traceback (most recent call last):
        ValueError: ... holds no run.json: pass the folder that harden or pretrain wrote to
    """
    earlier = read_run(run)
    if earlier is None:
        raise ValueError(f"{str(run)!r} holds no run.json: pass the folder that harden or pretrain wrote to")
    if earlier.command is None or earlier.function not in ("harden", "pretrain"):
        raise ValueError(
            f"the run in {str(run)!r} does not name its model, as it was begun from Python or is a trial: make the model, "
            "then model.load_state_dict(safetensors.torch.load_file(…)) with the run's model.safetensors"
        )
    sources = Sources(**{"data": earlier.command["data"], "checkpoint": str(run), **model_options(earlier)})
    with own_randomness(0):
        model = model_of(named(sources), _outputs_of(earlier, sources))
    if earlier.function == "pretrain":
        warnings.warn("the run learnt without labels, so the classifier of its model is not trained", stacklevel=2)
    return model.eval()


def _outputs_of(run: EarlierRun, sources: Sources) -> int | None:
    """Count the outputs of a run's model; where the run does not know them, by the classes of its data.

    Raises:
        ValueError: the data is not there.
    """
    if sources.classes is not None or sources.model.split(":")[0] not in LIBRARIES:
        return sources.classes
    command = run.command or {}
    known = {name: command[name] for name in ("data_dir", "data_args", "split") if name in command}
    try:
        return classes_of(loader_of(Sources(sources.model, sources.data, **known), labels=None))
    except ValueError as error:
        raise ValueError(
            f"the run in {str(run.folder)!r} does not say how many outputs its model has, and its data cannot be read ({error})"
        ) from error
