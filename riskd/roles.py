"""Which role may call which method: one table, for both doors and for docs/security.md.

A method that has no row here is for nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum


class Role(StrEnum):
    """What an identity is for."""

    GATEWAY = "gateway"
    TRADER = "trader"
    RISK_OFFICER = "risk_officer"
    FEED = "feed"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Touches(Enum):
    """Which accounts and gateways a method touches; the text is for the docs."""

    NOTHING = "no account"
    NAMED = "the accounts that it names"
    ACCOUNTS = "the accounts that it names; all if it names none"
    OWN_ORDERS = "a gateway: orders of its own gateway_id; others: as above"
    ORDERS = "the order's account; a gateway: of its own gateway_id"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method, and what of it an identity's accounts and gateways bound."""

    roles: frozenset[Role]
    touches: Touches

    def is_for_owner_only(self, roles: Iterable[Role]) -> bool:
        """Return whether these roles may call it for orders of their own gateways alone."""
        return self.roles & set(roles) == {Role.GATEWAY}


_EVERYBODY = frozenset(Role)
_READERS = frozenset({Role.TRADER, Role.RISK_OFFICER, Role.AUDITOR, Role.ADMIN})
_GATEWAY = frozenset({Role.GATEWAY})
_ADMIN = frozenset({Role.ADMIN})
_RISK_OFFICER = frozenset({Role.RISK_OFFICER})
_AUDIT = frozenset({Role.AUDITOR, Role.RISK_OFFICER, Role.ADMIN})

_ORDER_RULE = Rule(_GATEWAY, Touches.ORDERS)
_FEED_RULE = Rule(frozenset({Role.FEED}), Touches.NOTHING)
_CATALOGUE = Rule(_EVERYBODY, Touches.NOTHING)
_SETUP = Rule(_ADMIN, Touches.ACCOUNTS)
_OWNER = Rule(_ADMIN | _GATEWAY, Touches.ACCOUNTS)
_READ = Rule(_READERS, Touches.ACCOUNTS)
_READ_OF_GATEWAY = Rule(_READERS | _GATEWAY, Touches.ACCOUNTS)
_RISK = Rule(_RISK_OFFICER, Touches.ACCOUNTS)

# By service and method, in the order of the contract.
_SERVICES = {
    "riskd.v1.OrderRiskService": {
        "CheckOrder": _ORDER_RULE,
        "CheckAmendment": _ORDER_RULE,
        "BatchCheckOrders": _ORDER_RULE,
        "ReportExecution": _ORDER_RULE,
        "GetReservation": Rule(_READERS | _GATEWAY, Touches.ORDERS),
        "StreamOrders": _ORDER_RULE,
    },
    "riskd.v1.MarketDataService": {
        "ReportMarks": _FEED_RULE,
        "GetMark": _CATALOGUE,
        "ReportOpenInterest": _FEED_RULE,
    },
    "riskd.v1.AccountService": {
        "CreateAccount": _SETUP,
        "GetAccount": _READ_OF_GATEWAY,
        "ListAccounts": _READ,
        "AdjustCollateral": _SETUP,
        "TransferMargin": _OWNER,
        "ChangeMarginMode": _OWNER,
        "SetLeverage": _OWNER,
        "ChangePositionMode": _OWNER,
        "SetAccountOwner": _SETUP,
        "CreateFirm": _SETUP,
        "ListFirms": _READ,
        "LoadPosition": _SETUP,
        "SetCreditLine": _RISK,
    },
    "riskd.v1.InstrumentService": {
        "CreateAsset": _SETUP,
        "ListAssets": _CATALOGUE,
        "UpsertInstrument": _SETUP,
        "ListInstruments": _CATALOGUE,
        "UpsertMarginSchedule": _SETUP,
        "ListMarginSchedules": _CATALOGUE,
        "UpsertOptionRule": _SETUP,
        "ListOptionRules": _CATALOGUE,
        "DefineCollateral": _SETUP,
        "ListCollateral": _CATALOGUE,
        "ApplyFunding": _SETUP,
        "SettleInstrument": _SETUP,
    },
    "riskd.v1.MarginService": {
        "GetMarginSummary": _READ_OF_GATEWAY,
        "ListPositionMargins": _READ_OF_GATEWAY,
        "ComputeLiquidationPrice": _READ_OF_GATEWAY,
        "ComputeMaxOrderSize": _READ_OF_GATEWAY,
        "ComputeGreeks": Rule(_READERS | _GATEWAY, Touches.NOTHING),
        "SimulatePortfolio": Rule(_READERS | _GATEWAY, Touches.NAMED),
        "SetMarginLevels": _RISK,
        "WatchRiskEvents": _READ,
    },
    "riskd.v1.ControlService": {
        "EngageKillSwitch": Rule(_RISK_OFFICER | _ADMIN, Touches.ACCOUNTS),
        "ReleaseKillSwitch": _RISK,
        "ChangeTradingState": _RISK,
        "ListTradingStates": _READ,
        "RenewGatewayLease": Rule(_RISK_OFFICER | _GATEWAY, Touches.OWN_ORDERS),
        "ListGateways": Rule(_READERS, Touches.NOTHING),
        "CancelOrders": Rule(_RISK_OFFICER | _GATEWAY, Touches.OWN_ORDERS),
    },
    "riskd.v1.LimitService": {
        "SetLimit": _RISK,
        "RaiseLimit": _RISK,
        "RemoveLimit": _RISK,
        "ResetLimitUsage": _RISK,
        "ListLimits": _READ,
    },
    "riskd.v1.AuditService": {
        "ListChanges": Rule(_AUDIT, Touches.ACCOUNTS),
        "ExplainDecision": Rule(_AUDIT, Touches.ACCOUNTS),
        "ListDenials": Rule(_AUDIT, Touches.ACCOUNTS),
    },
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _CATALOGUE},
    "grpc.channelz.v1.Channelz": dict.fromkeys(
        (
            "GetTopChannels",
            "GetServers",
            "GetServer",
            "GetServerSockets",
            "GetChannel",
            "GetSubchannel",
            "GetSocket",
        ),
        Rule(_ADMIN, Touches.ACCOUNTS),
    ),
}

# By full name without the first slash: riskd.v1.OrderRiskService/CheckOrder.
RULES = {
    f"{service}/{method}": rule
    for service, methods in _SERVICES.items()
    for method, rule in methods.items()
}

# Health answers everybody: who balances load has no identity.
OPEN_SERVICES = ("grpc.health.v1.Health",)


def reference_table() -> str:
    """Return the Markdown table that docs/security.md shows."""
    lines = [
        "| method | " + " | ".join(Role) + " | touches |",
        "|---|" + "---|" * len(Role) + "---|",
    ]
    for service, methods in _SERVICES.items():
        for method, rule in methods.items():
            marks = " | ".join("x" if role in rule.roles else "" for role in Role)
            name = f"{service.rpartition('.')[2]}.{method}"
            lines.append(f"| `{name}` | {marks} | {rule.touches.value} |")
    return "\n".join(lines)
