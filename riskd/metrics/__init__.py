"""What a service measures of itself, for Prometheus and for `riskd top` (docs/observability.md)."""
