"""Which adapter answers a model of a venue.

A domain is a module adapters_<domain> with its adapters by model, MODELS. Two domains may have a
model of the same name: the venue's record says which domains are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from riskd.conform import (
    adapters_futures,
    adapters_open_interest,
    adapters_options,
    adapters_power,
    adapters_pricing,
    adapters_risk_factor,
    adapters_weights,
)
from riskd.conform.inputs import Inputs, NotCoveredError, Outputs
from riskd.conform.venues import Venue

Adapter = Callable[[Inputs, Venue], Outputs]

DOMAINS: Mapping[str, Mapping[str, Adapter]] = {
    "futures": adapters_futures.MODELS,
    "open_interest": adapters_open_interest.MODELS,
    "options": adapters_options.MODELS,
    "power": adapters_power.MODELS,
    "risk_factor": adapters_risk_factor.MODELS,
    "vaults": adapters_options.VAULT_MODELS,
    "weights": adapters_weights.MODELS,
}


def adapter_of(model: str, venue: Venue) -> Adapter:
    """Return the adapter. Raises NotCoveredError for a rule that is not here."""
    if model in adapters_pricing.MODELS:
        return adapters_pricing.MODELS[model]
    for domain in venue.domains:
        if model in DOMAINS[domain]:
            return DOMAINS[domain][model]
    raise NotCoveredError("no rule for this model of this venue")
