"""Makes an existing image classifier hard to fool."""

from robusttune.cli.doctor import unusable

try:
    from robusttune.measuring.compare import compare
    from robusttune.measuring.evaluate import evaluate
    from robusttune.measuring.monitor import Drift, Monitor
    from robusttune.measuring.record import Record
    from robusttune.measuring.records import Records
    from robusttune.measuring.report import report
    from robusttune.tasks._heads import load_heads
    from robusttune.threat import LossOf, ThreatModel
    from robusttune.training.estimate import Estimate, estimate
    from robusttune.training.harden import harden
    from robusttune.training.pretrain import pretrain
    from robusttune.training.replay import Replay, replay
    from robusttune.training.robust_loss import RobustLoss
    from robusttune.trial.poc import poc
except (ImportError, RuntimeError, AttributeError, OSError) as error:
    # As where torch and torchvision do not fit each other: `robusttune doctor` must be able to say so.
    globals()["__getattr__"] = unusable(error)

__version__ = "0.1.0"

__all__ = [
    "Drift",
    "Estimate",
    "LossOf",
    "Monitor",
    "Record",
    "Records",
    "Replay",
    "RobustLoss",
    "ThreatModel",
    "compare",
    "estimate",
    "evaluate",
    "harden",
    "load_heads",
    "poc",
    "pretrain",
    "replay",
    "report",
]
