"""How a model's forward passes are run: as they are, compiled, or under attack through a faster copy or a CUDA graph."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from robusttune.model.cuda_graphs import Graphs
from robusttune.model.features import Classifier, CompiledForward, forward
from robusttune.model.folding import Folded, folded

logger = logging.getLogger("robusttune")


class Passes:
    """Calling it gives the logits (N,K) and the features (N,D) of inputs (N,C,H,W), in the way that was chosen.

    Args:
        model: which is left without a trace of this, but for the hooks that stay while passes are compiled.
        classifier: where its features are.
    """

    def __init__(self, model: nn.Module, classifier: Classifier) -> None:
        self.model, self.classifier = model, classifier
        self.folded: Folded | None = None
        self.graphs: Graphs | None = None
        self.compiled = "no"
        self._made: dict[int, CompiledForward] = {}
        self._under_attack = self._replays = False

    def __call__(self, inputs: Tensor, weights: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if weights is not None:
            return forward(self.model, self.classifier, inputs, weights)
        if self.compiled == "whole" or (self.compiled == "attack" and self._under_attack):
            try:
                return self._compiled_pass()(inputs)
            except Exception as error:  # an error of the model itself comes again below
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                logger.warning("the model cannot be compiled here, so it goes on without: %s", reason)
                self.compile("no")
        if self.graphs is not None and self._replays:
            logits, features = self.graphs(self._plain, inputs)
            return logits, features
        return self._plain(inputs)

    def fold(self, inputs: Tensor | None) -> Folded | None:
        """Attack a copy whose batch norms are folded into its convolutions, where there is one; None for the model."""
        compiled = self.compiled
        self.compile("no")  # whose hooks would stand in the way
        self.folded = None if inputs is None else folded(self.model, self.classifier, inputs)
        self.compile(compiled)
        return self.folded

    def compile(self, which: str) -> None:
        """Compile no pass, those of the attack, or the whole of them; where that fails, it goes on without.

        Only private functions are compiled. "no" takes their hooks away again.
        """
        for made in self._made.values():
            made.remove()
        self._made, self.compiled = {}, which

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Leave what is compiled aside meanwhile."""
        kept, self.compiled = self.compiled, "no"
        try:
            yield
        finally:
            self.compiled = kept

    def replay(self, graphs: Graphs | None) -> None:
        """Let attacks replay CUDA graphs; None for not."""
        self.graphs = graphs

    @contextmanager
    def under_attack(self, *, differentiated_once: bool) -> Iterator[None]:
        """Use the folded, compiled or graphed forward while an attack runs: in eval mode, without gradients of weights.

        Args:
            differentiated_once: whether the attack takes a first derivative of each forward at most; CUDA graphs, which
                allow no more, are replayed only then.
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

    def _compiled_pass(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        model = self._attacked_model if self._under_attack else self.model
        if id(model) not in self._made:
            self._made[id(model)] = CompiledForward(model, self.classifier)
        return self._made[id(model)]
