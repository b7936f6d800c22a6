"""Prices of machines."""

from collections.abc import Mapping

from robusttune.run.settings import NOT_NEGATIVE, in_range
from robusttune.types import shown


def checked_prices(devices: Mapping[str, float] | None) -> dict[str, float]:
    """Check prices per hour by device.

    Raises:
        ValueError: not a mapping of names to finite numbers of at least 0.
    """
    if devices is None:
        return {}
    if not isinstance(devices, Mapping):
        raise ValueError(
            f'devices is {devices!r}, but prices an hour by name are needed, as {{"spot": 0.9, "own": 0.4}}'
        )
    for name, price in devices.items():
        if not in_range(price, NOT_NEGATIVE):
            raise ValueError(
                f"the price of {name!r} is {shown(price)}, but a finite number of at least 0 an hour is needed"
            )
    return {str(name): float(price) for name, price in devices.items()}
