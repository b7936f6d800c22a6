"""Makes an existing image classifier hard to fool."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robusttune.measuring.compare import compare
    from robusttune.measuring.eps_picture import draw_eps
    from robusttune.measuring.evaluate import evaluate
    from robusttune.measuring.monitor import Drift, Monitor
    from robusttune.measuring.record import Record
    from robusttune.measuring.records import Records
    from robusttune.measuring.report import report
    from robusttune.model.saved import load
    from robusttune.sharing.export import export
    from robusttune.sharing.exported import Export
    from robusttune.sharing.push import Push, push_to_hub
    from robusttune.sharing.save import save
    from robusttune.tasks._heads import load_heads
    from robusttune.threat import LossOf, ThreatModel
    from robusttune.training.advice.advise import Advice, advise
    from robusttune.training.estimate import Estimate, estimate
    from robusttune.training.harden import harden
    from robusttune.training.pretrain import pretrain
    from robusttune.training.replay import Replay, replay
    from robusttune.training.robust_loss import RobustLoss
    from robusttune.trial.poc import poc

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "Drift",
    "Estimate",
    "Export",
    "LossOf",
    "Monitor",
    "Push",
    "Record",
    "Records",
    "Replay",
    "RobustLoss",
    "ThreatModel",
    "advise",
    "compare",
    "draw_eps",
    "estimate",
    "evaluate",
    "export",
    "harden",
    "load",
    "load_heads",
    "poc",
    "pretrain",
    "push_to_hub",
    "replay",
    "report",
    "save",
]

# The imports above, which each name brings at its first use: torch comes with them, and takes seconds.
_MODULES = {
    "Advice": "training.advice.advise",
    "Drift": "measuring.monitor",
    "Estimate": "training.estimate",
    "Export": "sharing.exported",
    "LossOf": "threat",
    "Monitor": "measuring.monitor",
    "Push": "sharing.push",
    "Record": "measuring.record",
    "Records": "measuring.records",
    "Replay": "training.replay",
    "RobustLoss": "training.robust_loss",
    "ThreatModel": "threat",
    "advise": "training.advice.advise",
    "compare": "measuring.compare",
    "draw_eps": "measuring.eps_picture",
    "estimate": "training.estimate",
    "evaluate": "measuring.evaluate",
    "export": "sharing.export",
    "harden": "training.harden",
    "load": "model.saved",
    "load_heads": "tasks._heads",
    "poc": "trial.poc",
    "pretrain": "training.pretrain",
    "push_to_hub": "sharing.push",
    "replay": "training.replay",
    "report": "measuring.report",
    "save": "sharing.save",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name.

        Raises:
            ImportError: it cannot be imported, as where torch and torchvision do not fit each other.
        """
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(f"robusttune.{_MODULES[name]}"), name)
        except Exception as error:
            from robusttune.cli.doctor import why_unusable

            raise ImportError(why_unusable(error)) from error
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
