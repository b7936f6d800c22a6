"""Makes an existing image classifier hard to fool."""

from robusttune.doctor import unusable

try:
    from robusttune.compare import compare
    from robusttune.evaluate import evaluate
    from robusttune.harden import harden
    from robusttune.load_heads import load_heads
    from robusttune.loss import RobustLoss
    from robusttune.pretrain import pretrain
    from robusttune.records import Record, Records
    from robusttune.report import report
    from robusttune.threat import LossOf, ThreatModel
except (ImportError, RuntimeError, AttributeError, OSError) as error:
    # As where torch and torchvision do not fit each other: `robusttune doctor` must be able to say so.
    globals()["__getattr__"] = unusable(error)

__version__ = "0.1.0"

__all__ = [
    "LossOf",
    "Record",
    "Records",
    "RobustLoss",
    "ThreatModel",
    "compare",
    "evaluate",
    "harden",
    "load_heads",
    "pretrain",
    "report",
]
