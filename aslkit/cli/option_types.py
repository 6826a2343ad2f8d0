"""Text of an option -> checked value."""

import math
import re

import click

POSITIVE = click.FloatRange(min=0, min_open=True)
T1_RANGE = click.FloatRange(0.1, 10)
FRACTION = click.FloatRange(0.01, 1)
LABELING = click.Choice(["pcasl", "casl", "pasl", "vsasl"])
KINETIC = click.Choice(["single", "tissue"])
MACROVASCULAR = click.Choice(["auto", "on", "off"])


class NumberList(click.ParamType):  # type: ignore[type-arg]
    """Comma-separated numbers: `length` of them, or any number of them if it is 0."""

    name = "A,B,…"

    def __init__(self, length: int = 0) -> None:
        self.length = length

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers; a tuple (a default value) is returned unchanged."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 0.5,1.0", param, ctx)
        if not all(math.isfinite(number) for number in numbers):
            self.fail(f"{value!r} contains a number that is not finite", param, ctx)
        if self.length and len(numbers) != self.length:
            self.fail(f"{value!r} has {len(numbers)} numbers, expected {self.length}", param, ctx)
        return numbers


class Threshold(click.ParamType):  # type: ignore[type-arg]
    """A positive number, or "off"."""

    name = "Z|off"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Return the number, or None for "off"."""
        if str(value) == "off":
            return None
        return float(POSITIVE.convert(value, param, ctx))  # type: ignore[arg-type]


class Part(click.ParamType):  # type: ignore[type-arg]
    """The K-th of N parts, written K/N."""

    name = "K/N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return part K and number of parts N of a text K/N."""
        found = re.fullmatch(r"(\d+)/(\d+)", str(value))
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"{value!r} is not like 2/8, with K from 1 to N", param, ctx)
        return int(found[1]), int(found[2])


class SnrRange(NumberList):
    """One SNR, or a range of SNRs."""

    name = "X|A,B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the lowest and the highest SNR."""
        numbers = super().convert(value, param, ctx)
        if len(numbers) > 2 or not 0 < numbers[0] <= numbers[-1]:
            self.fail(f"{value!r} is not a positive number X or a range A,B", param, ctx)
        return numbers[0], numbers[-1]


class MatrixSize(NumberList):
    """Numbers of voxels along x, y and z."""

    name = "X,Y,Z"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the three numbers."""
        numbers = super().convert(value, param, ctx)
        if any(n % 1 or n < 1 for n in numbers):
            self.fail(f"{value!r} is not three whole numbers like 64,64,24", param, ctx)
        return tuple(int(n) for n in numbers)
