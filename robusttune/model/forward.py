"""Forward passes of a model: eager or compiled, and under attack through a folded copy or a CUDA graph."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from torch import Tensor, nn

from robusttune.model.cuda_graphs import Graphs
from robusttune.model.features import Classifier, CompiledForward, forward
from robusttune.model.folding import Folded, folded
from robusttune.model.gradient_scaling import in_fp16, scaled

Compiled: TypeAlias = Literal["no", "attack", "whole"]

logger = logging.getLogger("robusttune")


class ForwardRunner:
    """A model's forward from inputs (N,C,H,W) to logits (N,K) and features (N,D), run in the fastest way chosen.

    Args:
        model: stays unchanged, except for hooks while forwards are compiled.
        classifier: the layers that read the features.

    Attributes:
        folded: the copy that is attacked; None to attack the model.
        graphs: the CUDA graphs that attacks replay; None to replay none.
        compiled: the forwards that are compiled: "no", "attack" or "whole".
    """

    def __init__(self, model: nn.Module, classifier: Classifier) -> None:
        self.model, self.classifier = model, classifier
        self.folded: Folded | None = None
        self.graphs: Graphs | None = None
        self.compiled: Compiled = "no"
        self._compiled_forwards: dict[nn.Module, CompiledForward] = {}
        self._under_attack = self._replays = False

    def __call__(self, inputs: Tensor, weights: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if weights is not None:
            return forward(self.model, self.classifier, inputs, weights)
        if self._under_attack and in_fp16(inputs.device):
            return scaled(self._run, inputs)
        return self._run(inputs)

    def _run(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.compiled == "whole" or (self.compiled == "attack" and self._under_attack):
            try:
                return self._compiled_forward()(inputs)
            except Exception as error:  # an error of the model itself is raised again below
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                logger.warning("the model cannot be compiled here, so it goes on without: %s", reason)
                self.compile("no")
        if self.graphs is not None and self._replays:
            logits, features = self.graphs(self._plain, inputs)
            return logits, features
        return self._plain(inputs)

    def fold(self, inputs: Tensor | None) -> Folded | None:
        """Attack a copy whose batch norms are folded into its convolutions, if the model has such a copy.

        Args:
            inputs: (N,C,H,W), to compare the copy with the model; None to attack the model.
        """
        compiled = self.compiled
        self.compile("no")  # removes hooks, which a copy cannot have
        self.folded = None if inputs is None else folded(self.model, self.classifier, inputs)
        self.compile(compiled)
        return self.folded

    def compile(self, which: Compiled) -> None:
        """Compile no forward ("no"), those of the attack ("attack"), or all of them ("whole").

        Where a forward cannot be compiled, it runs eagerly, with a warning in the log. Only private functions are
        compiled, not the model; "no" removes their hooks.
        """
        for forward_of_model in self._compiled_forwards.values():
            forward_of_model.remove()
        self._compiled_forwards, self.compiled = {}, which

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run forwards eagerly inside the context."""
        kept: Compiled = self.compiled
        self.compiled = "no"
        try:
            yield
        finally:
            self.compiled = kept

    def replay(self, graphs: Graphs | None) -> None:
        """Replay these CUDA graphs in attacks; None to replay none, and to give the memory of those before back."""
        if self.graphs is not None and self.graphs is not graphs:
            self.graphs.clear()
        self.graphs = graphs

    def release(self) -> int:
        """Compile nothing and replay no graphs any more; returns the bytes that graphs kept on the device."""
        kept = 0 if self.graphs is None else self.graphs.bytes
        self.compile("no")
        self.replay(None)
        return kept

    @contextmanager
    def unreplayed(self) -> Iterator[None]:
        """Replay no graphs inside the context."""
        kept, self.graphs = self.graphs, None
        try:
            yield
        finally:
            self.graphs = kept

    @contextmanager
    def under_attack(self, *, differentiated_once: bool) -> Iterator[None]:
        """Use the folded, compiled or graphed forward while an attack runs: in eval mode, without gradients of weights.

        Args:
            differentiated_once: whether the attack takes at most one first derivative of each forward; CUDA graphs are
                replayed only then, as they allow no more.
        """
        if self.folded is not None:
            self.folded.refresh()
        self._replays = self.graphs is not None and differentiated_once
        if self.graphs is not None and self._replays:
            self.graphs.expect(self._attacked_model)
        self._under_attack = True
        try:
            yield
        finally:
            self._under_attack = self._replays = False

    @property
    def _attacked_model(self) -> nn.Module:
        return self.model if self.folded is None else self.folded.copy

    def _plain(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return forward(self._attacked_model if self._under_attack else self.model, self.classifier, inputs)

    def _compiled_forward(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        model = self._attacked_model if self._under_attack else self.model
        if model not in self._compiled_forwards:
            self._compiled_forwards[model] = CompiledForward(model, self.classifier)
        return self._compiled_forwards[model]
