"""Gates on the command line: requirements, which are checked before anything is measured, and decide the exit code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from robusttune.cli.errors import UsageError, in_options
from robusttune.cli.evaluations import list_of
from robusttune.cli.labels import Images
from robusttune.cli.options import Arguments, Listed, Sources
from robusttune.cli.unlabeled import are_alone
from robusttune.data.pixels import Pixels
from robusttune.measuring.checks import Checks
from robusttune.measuring.evaluate import EvaluationLike, chosen_evaluations
from robusttune.measuring.gate import check_planned, checks_of
from robusttune.measuring.gate_files import check_paths, write_files
from robusttune.measuring.passes import threats_of
from robusttune.measuring.records import Records
from robusttune.measuring.records_files import FILE
from robusttune.measuring.requirements import Requirement, requirements_of
from robusttune.measuring.subject import Subject
from robusttune.norms import canonical, default_eps
from robusttune.threat import ThreatModel
from robusttune.types import PathLike

OPTIONS = ("which", "norm", "eps", "require", "fail_if_worse", "summary", "junit", "sarif")
Paths: TypeAlias = dict[str, PathLike | None]


class Gate:
    """The options of a gate, read before anything is measured.

    Args:
        texts: requirements, or margins; None for no gate.
        paths: files for the result, by "summary", "junit" and "sarif".
        read: the function that reads the texts.

    Raises:
        UsageError: a requirement cannot be read, a file cannot be written, or files are named without a requirement.
    """

    def __init__(
        self, texts: Listed, paths: Paths, read: Callable[[list[object]], list[Requirement]] = requirements_of
    ) -> None:
        self.paths, self.option = paths, "require" if read is requirements_of else "fail_if_worse"
        entries = list_of(texts)
        named = [f"--{name}" for name, path in paths.items() if path is not None]
        if entries is None and named:
            raise UsageError(f"{', '.join(named)} is for the result of --{self.option}, which is missing: add it")
        self.texts = None if entries is None else [str(each) for each in entries]
        with _as_usage():
            self.wanted = [] if entries is None else read(entries)
            check_paths(paths)

    def look(
        self,
        sources: Sources,
        arguments: Arguments,
        evaluations: Sequence[EvaluationLike],
        model: nn.Module,
        loader: Images,
    ) -> None:
        """Check that the evaluations will measure what is required.

        Args:
            sources: the sources of the images.
            arguments: the arguments of evaluate, with norm and eps as the run has them.
            evaluations: to be made.
            model, loader: to be measured.

        Raises:
            UsageError: it will not.
        """
        if not self.wanted:
            return
        if are_alone(loader):
            raise UsageError(
                f"--{self.option} is about accuracy, but the images of {sources.data} have no labels: sort them into a folder for "
                "each class"
            )
        norm, shape = canonical(arguments["norm"]), (sources.channels, sources.size, sources.size)
        known = arguments["eps"] is not None
        threat = ThreatModel(norm, arguments["eps"] if known else default_eps(norm, shape))
        subject = Subject(model, Pixels(), threat, (), shape, 2, torch.device("cpu"))
        planned = {name: threats_of(evaluation, subject) for name, evaluation in chosen_evaluations(evaluations)}
        with _as_usage():
            check_planned(self.wanted, planned, threat if known else None)

    def conclude(self, checks: Checks, place: str) -> int:
        """Print and write the checks; return the exit code."""
        write_files(checks, place, self.paths)
        print(f"\n{checks}\n\n{checks.summary()}")
        return checks.code


def judged(gate: Gate, records: Records, out: PathLike | None) -> int:
    """Check the requirements on what was measured; return the exit code, 0 without requirements."""
    if gate.texts is None:
        return 0
    return gate.conclude(checks_of(records, *gate.texts), "" if out is None else str(Path(out) / FILE))


@contextmanager
def _as_usage() -> Iterator[None]:
    """Raise what does not fit, inside this context, as a UsageError in the words of the options."""
    try:
        yield
    except ValueError as error:
        raise UsageError(in_options(str(error), OPTIONS)) from error
