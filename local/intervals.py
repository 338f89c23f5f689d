"""Confidence intervals at 95 %: of means by the bootstrap, of rates by Wilson's method."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

CONFIDENCE = 0.95
RESAMPLES = 1000
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and between what the truth lies in 95 of 100 such samples."""

    at: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is one."""
        return self.low > 0 or self.high < 0


def mean(values: Sequence[float]) -> Interval:
    """Of at least one value."""
    return _percentiles(fmean(values), _means(values))


def mean_difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """By how much the mean of `values` is above that of `others`."""
    pairs = zip(_means(values), _means(others, seed=2), strict=True)
    return _percentiles(fmean(values) - fmean(others), [a - b for a, b in pairs])


def rate(count: int, total: int) -> Interval:
    """Of `count` in `total`, which is at least 1 (Wilson 1927)."""
    at, square = count / total, _Z**2
    middle = (at + square / (2 * total)) / (1 + square / total)
    spread = math.sqrt(at * (1 - at) / total + square / (4 * total**2)) * _Z / (1 + square / total)
    return Interval(at, max(middle - spread, 0.0), min(middle + spread, 1.0))


def rate_difference(a: Interval, b: Interval) -> Interval:
    """By how much one rate is above another (Newcombe 1998, method 10)."""
    at = a.at - b.at
    low = at - math.hypot(a.at - a.low, b.high - b.at)
    return Interval(at, low, at + math.hypot(a.high - a.at, b.at - b.low))


def _means(values: Sequence[float], *, seed: int = 1) -> list[float]:
    """Means of samples of the sample; the same ones each time, so that a report can be repeated."""
    dice = random.Random(seed)  # noqa: S311 - a sample, not a secret
    return [fmean(dice.choices(values, k=len(values))) for _ in range(RESAMPLES)]


def _percentiles(at: float, resampled: list[float]) -> Interval:
    resampled.sort()
    left_out = round(len(resampled) * (1 - CONFIDENCE) / 2)
    return Interval(at, resampled[left_out], resampled[-1 - left_out])
