"""Several claims at once: which of them may be made so that any wrong one among them has a probability of at most alpha.

That *every* claim of a list holds needs no correction: each is tested at alpha, and all must be shown (intersection-union test, Berger
1982, Technometrics 24:295-300). To name the ones that hold, or the one task on which a candidate is worse, needs one:

    e values   closed testing with the arithmetic mean, under any dependence (Vovk and Wang 2021, Annals of Statistics 49:1736-1754)
    p values   step-down (Holm 1979, Scandinavian Journal of Statistics 6:65-70), under any dependence
"""

from __future__ import annotations

from collections.abc import Mapping

from model_core.spec.errors import require


def adjusted_e_values(e_values: Mapping[str, float]) -> dict[str, float]:
    """For each claim the smallest mean e value of all sets of claims that it belongs to: at 1/alpha and above the claim may be made.

    The smallest set of k is the claim with the k - 1 smallest others. Raises `SpecError` for a negative e value.
    """
    require(all(value >= 0 for value in e_values.values()), "e values must be 0 or more", got=dict(e_values))
    rising = sorted(e_values, key=lambda name: e_values[name])
    found: dict[str, float] = {}
    for name, value in e_values.items():
        total, least = value, value
        for count, other in enumerate((one for one in rising if one != name), start=2):
            total += e_values[other]
            least = min(least, total / count)
        found[name] = least
    return found


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p value of each claim: at alpha and below the claim may be made. Raises `SpecError` for a p value outside 0..1."""
    require(all(0.0 <= value <= 1.0 for value in p_values.values()), "p values must be 0..1", got=dict(p_values))
    found: dict[str, float] = {}
    most = 0.0
    for left, name in zip(range(len(p_values), 0, -1), sorted(p_values, key=lambda name: p_values[name]), strict=True):
        most = max(most, min(1.0, left * p_values[name]))
        found[name] = most
    return found
