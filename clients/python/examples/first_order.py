"""The life of an order: check and reserve, fill, look at the margin, be told what would still pass.

riskd serve --rulebooks textbook
python examples/first_order.py localhost:50051
"""

import itertools
import sys
import time

from riskd_client import (
    AlreadyExists,
    Client,
    DecisionView,
    LiquidationStatus,
    OrderDecision,
    OutcomeUnknown,
)

ACCOUNT = 1001
SYMBOL = "BTC-PERP"


def show(title: str, decision: OrderDecision) -> None:
    """Print a decision and its explanation."""
    print(f"{title}: {decision.decision.name} ({decision.reason.name})")
    if decision.accepted:
        print(f"  reserved {decision.reserved}, left for orders {decision.available}")
    if decision.max_quantity is not None:
        print(f"  the largest quantity that passes: {decision.max_quantity}")
    if decision.liquidation_status is LiquidationStatus.AT_PRICE:
        print(f"  liquidation price after the fill: {decision.liquidation_price}")
    for violation in decision.detail.violations if decision.detail else ():
        print(
            f"  {violation.reason.name}: limit {violation.limit}, in use {violation.use}, "
            f"this order {violation.order_use}"
        )


def main(target: str) -> None:
    # Execution ids are the venue's; here the clock stands in for one.
    execution_ids = itertools.count(time.time_ns())
    with Client(target, gateway_id=7, timeout=2.0) as client:
        try:
            client.create_account(ACCOUNT, "USD", initial_collateral="10000", default_leverage=10)
        except AlreadyExists:
            print(f"account {ACCOUNT} is there already")
        client.report_marks({SYMBOL: "50000"})

        try:
            order = client.check_order(
                ACCOUNT, SYMBOL, "buy", "0.5", "50000", view=DecisionView.FULL
            )
        except OutcomeUnknown as unknown:
            # The same id gets the first answer again, or a decision now: never two orders.
            order = client.check_order(
                ACCOUNT,
                SYMBOL,
                "buy",
                "0.5",
                "50000",
                view=DecisionView.FULL,
                client_order_id=unknown.client_order_id,
            )
        show("buy 0.5 at 50000", order)
        if not order.accepted:
            return

        fill = client.report_fill(order, "50000", "0.2", execution_id=next(execution_ids))
        print(f"filled 0.2: position {fill.position}, still working {fill.remaining}")
        client.report_cancel(order, execution_id=next(execution_ids))
        summary = client.margin_summary(ACCOUNT)
        print(f"cancelled the rest: initial margin {summary.initial_margin}")
        print(f"  available {summary.available} {summary.settlement_asset}")

        too_large = client.check_order(
            ACCOUNT, SYMBOL, "buy", 50, "50000", view=DecisionView.FULL, check_only=True
        )
        show("buy 50 at 50000", too_large)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:50051")
