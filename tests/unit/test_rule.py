"""riskd.margin.Rule: what it takes from a rulebook and what it refuses."""

import pytest

from riskd.margin import Rule


def test_a_rule_reads_the_texts_of_a_rulebook() -> None:
    rule = Rule.of({"contract": "inverse", "fee_in_bankruptcy": True, "extra_ticks": 1})
    assert rule == Rule(contract="inverse", fee_in_bankruptcy=True, extra_ticks=1)
    assert Rule.of({}) == Rule()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"contract": "quanto"}, "rule.contract 'quanto' is not one of linear, inverse"),
        ({"tier_mode": 1}, "rule.tier_mode 1 is not one of marginal, whole"),
        ({"fee_in_bankruptcy": "yes"}, "rule.fee_in_bankruptcy 'yes' is not one of true, false"),
        ({"extra_ticks": True}, "rule.extra_ticks True is not a whole number"),
        ({"extra_ticks": -1}, "rule.extra_ticks -1 is not within 0 to 1000"),
        ({"extra_ticks": 1001}, "rule.extra_ticks 1001 is not within 0 to 1000"),
        ({"tiers": []}, "rule.tiers is not one of contract, wallet, "),
    ],
)
def test_a_rule_refuses_by_field_value_and_bound(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rule.of(values)
