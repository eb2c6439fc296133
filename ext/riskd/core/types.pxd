"""The domain on one page: what the engine keeps, and what a hot request says.

Prices are ticks or mark units, quantities lots, money minor units of the settlement asset, rates
ppb, leverage hundredths (docs/decision.md). Numbers of enums are those of proto/riskd/v1 and stay
for ever; tests/unit/test_types.py compares them.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from riskd.core.money cimport i128

cdef extern from "core.h" nogil:
    """
    #define RISKD_LIMIT_53 (1LL << 53)
    """
    # The largest price, mark and quantity: what a double holds exactly, so that any client can
    # print it.
    const int64_t NUMBER_MAX "RISKD_LIMIT_53"

cdef enum:
    TIERS_MAX = 32
    NAME_SIZE = 32
    ASSETS_MAX = 256
    MARKS_PER_REPORT_MAX = 1024
    # Clocks of a feed and of the service may differ by this much.
    MARK_LEAD_NS_MAX = 1000000000
    # Orders that expire in one step of time.
    EXPIRIES_PER_STEP_MAX = 1024
    ORDERS_PER_BATCH_MAX = 64
    VIOLATIONS_MAX = 32
    # Changes of margin levels that are kept.
    RISK_EVENTS_MAX = 65536
    COLLATERALS_MAX = 4096
    COLLATERAL_TIERS_MAX = 8
    # That work on a position.
    PROTECTIVE_ORDERS_MAX = 64

# An index that points nowhere.
cdef enum: NOWHERE = 0xFFFFFFFF

cdef enum Side:
    SIDE_BUY = 1
    SIDE_SELL = 2

cdef enum PositionSide:
    POSITION_SIDE_NET = 1
    POSITION_SIDE_LONG = 2
    POSITION_SIDE_SHORT = 3

cdef enum PositionMode:
    POSITION_MODE_ONE_WAY = 1
    POSITION_MODE_HEDGE = 2

cdef enum OrderType:
    ORDER_TYPE_LIMIT = 1
    ORDER_TYPE_MARKET = 2
    ORDER_TYPE_STOP = 3
    ORDER_TYPE_STOP_LIMIT = 4
    ORDER_TYPE_TAKE_PROFIT = 5
    ORDER_TYPE_TAKE_PROFIT_LIMIT = 6
    ORDER_TYPE_TRAILING_STOP = 7

cdef enum TimeInForce:
    TIME_IN_FORCE_IOC = 2
    TIME_IN_FORCE_FOK = 3
    TIME_IN_FORCE_GTD = 4

cdef enum MarginMode:
    MARGIN_MODE_UNSPECIFIED = 0
    MARGIN_MODE_CROSS = 1
    MARGIN_MODE_ISOLATED = 2

cdef enum TradingState:
    TRADING_STATE_NORMAL = 1
    TRADING_STATE_REDUCE_ONLY = 2
    TRADING_STATE_HALTED = 3

cdef enum OrderFlag:
    ORDER_FLAG_REDUCE_ONLY = 1
    ORDER_FLAG_POST_ONLY = 2
    ORDER_FLAG_CLOSE_POSITION = 4
    ORDER_FLAG_QUOTE_QUANTITY = 8

cdef enum CheckMode:
    CHECK_MODE_CHECK_ONLY = 2

cdef enum DecisionView:
    DECISION_VIEW_MARGIN = 2
    DECISION_VIEW_FULL = 3

cdef enum Decision:
    DECISION_ACCEPTED = 1
    DECISION_REJECTED = 2
    DECISION_ACCEPTED_WITH_WARNING = 3

cdef enum LiquidationStatus:
    LIQUIDATION_STATUS_UNSPECIFIED = 0
    LIQUIDATION_STATUS_AT_PRICE = 1
    LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED = 2
    LIQUIDATION_STATUS_NO_POSITION = 3

cdef enum ExecutionKind:
    EXECUTION_KIND_FILL = 1
    EXECUTION_KIND_CANCEL = 2
    EXECUTION_KIND_EXPIRE = 3
    EXECUTION_KIND_VENUE_REJECT = 4
    EXECUTION_KIND_BUST = 5
    EXECUTION_KIND_CORRECTION = 6

cdef enum BatchMode:
    BATCH_MODE_INDEPENDENT = 1
    BATCH_MODE_ALL_OR_NONE = 2

cdef enum LeaseAction:
    LEASE_ACTION_BLOCK = 1
    LEASE_ACTION_CANCEL = 2

cdef enum LimitKind:
    LIMIT_KIND_ORDER_QUANTITY_MIN = 1
    LIMIT_KIND_ORDER_QUANTITY_MAX = 2
    LIMIT_KIND_ORDER_NOTIONAL_MIN = 3
    LIMIT_KIND_ORDER_NOTIONAL_MAX = 4
    LIMIT_KIND_COLLAR_PPB = 5
    LIMIT_KIND_COLLAR_TICKS = 6
    LIMIT_KIND_POSITION_LOTS_MAX = 7
    LIMIT_KIND_POSITION_NOTIONAL_MAX = 8
    LIMIT_KIND_GROSS_EXPOSURE_MAX = 9
    LIMIT_KIND_OPEN_ORDERS_MAX = 10
    LIMIT_KIND_OPEN_NOTIONAL_MAX = 11
    LIMIT_KIND_ORDER_RATE_MAX = 12
    LIMIT_KIND_EXECUTION_RATE_MAX = 13
    LIMIT_KIND_DAILY_TRADED_MAX = 14
    LIMIT_KIND_DAILY_LOSS_MAX = 15
    LIMIT_KIND_DRAWDOWN_MAX = 16
    LIMIT_KIND_LEVERAGE_MAX = 17
    LIMIT_KIND_DELTA_MAX = 18
    LIMIT_KIND_GAMMA_MAX = 19
    LIMIT_KIND_VEGA_MAX = 20
    LIMIT_KIND_CONCENTRATION_MAX = 21
    LIMIT_KIND_DENIED = 22
    LIMIT_KIND_ALLOWED = 23
    LIMIT_KINDS = 23

cdef enum LimitScope:
    LIMIT_SCOPE_GATEWAY = 2
    LIMIT_SCOPE_ACCOUNT = 3
    LIMIT_SCOPE_FIRM = 5

cdef enum LimitAction:
    LIMIT_ACTION_HARD = 1
    LIMIT_ACTION_SOFT = 2

cdef enum ReservationState:
    RESERVATION_STATE_UNKNOWN = 1
    RESERVATION_STATE_WORKING = 2
    RESERVATION_STATE_CLOSED = 3

cdef enum InstrumentKind:
    INSTRUMENT_KIND_LINEAR_PERPETUAL = 1
    INSTRUMENT_KIND_LINEAR_OPTION = 2
    INSTRUMENT_KIND_INVERSE_PERPETUAL = 3
    INSTRUMENT_KIND_LINEAR_FUTURE = 4
    INSTRUMENT_KIND_INVERSE_FUTURE = 5
    INSTRUMENT_KIND_INVERSE_OPTION = 6
    INSTRUMENT_KIND_SPOT = 7
    INSTRUMENT_KIND_QUANTO_PERPETUAL = 8

# Margin schedules, docs/instruments.md.
cdef enum Family:
    FAMILY_TIERED = 1
    FAMILY_TIERED_WHOLE = 2
    FAMILY_TIERED_QUANTITY = 3
    FAMILY_SIZE_LINEAR = 4
    FAMILY_PER_CONTRACT = 5
    FAMILY_OPEN_INTEREST = 6
    FAMILY_SIZE_SQRT = 7
    FAMILY_POWER = 8
    FAMILY_RISK_FACTOR = 9
    FAMILY_OPTION_RULE = 20

# Of option rules: whose maintenance is at least its rate of the option's own mark.
cdef enum PutMaintenance:
    PUT_MAINTENANCE_NONE = 0
    PUT_MAINTENANCE_PUTS = 1
    PUT_MAINTENANCE_ALL = 2

cdef enum MaintenanceBasis:
    MAINTENANCE_BASIS_MARK = 1
    MAINTENANCE_BASIS_ENTRY = 2

# What a schedule asks for the fee of closing.
cdef enum ClosingFee:
    CLOSING_FEE_NONE = 0
    CLOSING_FEE_IN_MAINTENANCE = 1
    CLOSING_FEE_RESERVED = 2
    CLOSING_FEE_AT_BANKRUPTCY = 3

cdef enum MarginLevel:
    MARGIN_LEVEL_SAFE = 0
    MARGIN_LEVEL_SEARCH = 1
    MARGIN_LEVEL_LIQUIDATION = 2

cdef enum OptionType:
    OPTION_TYPE_CALL = 1
    OPTION_TYPE_PUT = 2

cdef enum Reason:
    REASON_UNSPECIFIED = 0
    REASON_NONE = 1
    REASON_CLIENT_ORDER_ID_MISSING = 10
    REASON_GATEWAY_ID_MISSING = 11
    REASON_ACCOUNT_UNKNOWN = 12
    REASON_INSTRUMENT_UNKNOWN = 13
    REASON_SIDE_INVALID = 14
    REASON_ORDER_TYPE_NOT_SUPPORTED = 15
    REASON_TIME_IN_FORCE_NOT_SUPPORTED = 16
    REASON_FLAG_NOT_SUPPORTED = 17
    REASON_POSITION_SIDE_NOT_SUPPORTED = 18
    REASON_QUANTITY_MUST_BE_POSITIVE = 19
    REASON_QUANTITY_OUT_OF_RANGE = 20
    REASON_PRICE_OUT_OF_RANGE = 21
    REASON_NOTIONAL_OVERFLOWS = 22
    REASON_SETTLEMENT_ASSET_MISMATCH = 23
    REASON_MARGIN_MODE_MISMATCH = 24
    REASON_CHECK_MODE_NOT_SUPPORTED = 25
    REASON_VIEW_NOT_SUPPORTED = 26
    REASON_TRIGGER_PRICE_OUT_OF_RANGE = 27
    REASON_TRAILING_OFFSET_OUT_OF_RANGE = 28
    REASON_EXPIRE_TIME_OUT_OF_RANGE = 29
    REASON_SERVICE_HALTED = 40
    REASON_GATEWAY_HALTED = 41
    REASON_ACCOUNT_HALTED = 42
    REASON_INSTRUMENT_HALTED = 43
    REASON_INSTRUMENT_EXPIRED = 44
    REASON_SERVICE_REDUCE_ONLY = 45
    REASON_GATEWAY_REDUCE_ONLY = 46
    REASON_ACCOUNT_REDUCE_ONLY = 47
    REASON_INSTRUMENT_REDUCE_ONLY = 48
    REASON_MARK_MISSING = 49
    REASON_MARK_STALE = 50
    REASON_GATEWAY_LEASE_ENDED = 51
    REASON_FIRM_HALTED = 52
    REASON_FIRM_REDUCE_ONLY = 53
    REASON_CLIENT_ORDER_ID_REUSED = 60
    REASON_EXECUTION_ID_REUSED = 61
    REASON_EXECUTION_ID_MISSING = 62
    REASON_BELOW_ORDER_QUANTITY_MIN = 80
    REASON_EXCEEDS_ORDER_QUANTITY_MAX = 81
    REASON_BELOW_ORDER_NOTIONAL_MIN = 82
    REASON_EXCEEDS_ORDER_NOTIONAL_MAX = 83
    REASON_PRICE_OUTSIDE_COLLAR = 84
    REASON_EXCEEDS_POSITION_NOTIONAL_MAX = 85
    REASON_REDUCE_ONLY_WOULD_INCREASE = 86
    REASON_SHORT_OPTION_NOT_PERMITTED = 87
    REASON_POSITION_SIDE_WOULD_TURN = 88
    REASON_PROTECTIVE_ORDERS_MAX = 89
    REASON_MARGIN_INSUFFICIENT = 100
    REASON_BORN_LIQUIDATABLE = 101
    REASON_MARGIN_OVERFLOWS = 102
    REASON_BALANCE_INSUFFICIENT = 103
    REASON_RESERVATION_UNKNOWN = 120
    REASON_EXECUTION_EXCEEDS_REMAINING = 121
    REASON_EXECUTION_KIND_NOT_SUPPORTED = 122
    REASON_EXECUTION_QUANTITY_MISMATCH = 123
    REASON_EXECUTION_INSTRUMENT_MISMATCH = 124
    REASON_AMENDMENT_BELOW_FILLED = 125
    REASON_EXECUTION_BEYOND_LIMIT = 126
    REASON_RESERVATION_CLOSED = 127
    REASON_ORIGINAL_EXECUTION_UNKNOWN = 128
    REASON_EXECUTION_ALREADY_UNDONE = 129
    REASON_ACCOUNTS_FULL = 140
    REASON_POSITIONS_FULL = 141
    REASON_ORDERS_FULL = 142
    REASON_INSTRUMENTS_FULL = 143
    REASON_GATEWAYS_FULL = 144
    REASON_SCHEDULES_FULL = 145
    REASON_BALANCES_FULL = 146
    REASON_LIMITS_FULL = 147
    REASON_FIRMS_FULL = 148
    REASON_HOLDINGS_FULL = 149
    REASON_MARK_OUT_OF_RANGE = 160
    REASON_MARK_OUT_OF_ORDER = 161
    REASON_OPTION_MARK_OUT_OF_RANGE = 162
    REASON_MARK_FROM_FUTURE = 163
    REASON_AMOUNT_OUT_OF_RANGE = 180
    REASON_EXCEEDS_AVAILABLE = 181
    REASON_EXCEEDS_REMOVABLE_MARGIN = 182
    REASON_NO_ISOLATED_POSITION = 183
    REASON_LEVERAGE_OUT_OF_RANGE = 184
    REASON_LEVERAGE_LOWERED_ON_ISOLATED = 185
    REASON_POSITION_NOT_FLAT = 186
    REASON_ALREADY_EXISTS = 187
    REASON_DEFINITION_INVALID = 188
    REASON_FIELD_IMMUTABLE = 189
    REASON_SCHEDULE_UNKNOWN = 190
    REASON_ASSET_UNKNOWN = 191
    REASON_OWNER_INVALID = 192
    REASON_LIMIT_LOOSER_THAN_PARENT = 193
    REASON_LIMIT_UNKNOWN = 194
    REASON_FIRM_UNKNOWN = 195
    REASON_OWNER_HAS_USAGE = 196
    REASON_FUNDING_OUT_OF_ORDER = 197
    REASON_INSTRUMENT_NOT_EXPIRED = 198
    REASON_INSTRUMENT_SETTLED = 199
    REASON_BATCH_PARTLY_ANSWERED = 200
    REASON_BATCH_ORDER_REJECTED = 201
    REASON_BORN_LIQUIDATABLE_IN_MODE = 210
    REASON_ISOLATED_ONLY = 211
    REASON_LIMIT_ORDER_QUANTITY_MIN = 220
    REASON_LIMIT_ORDER_QUANTITY_MAX = 221
    REASON_LIMIT_ORDER_NOTIONAL_MIN = 222
    REASON_LIMIT_ORDER_NOTIONAL_MAX = 223
    REASON_LIMIT_COLLAR_PPB = 224
    REASON_LIMIT_COLLAR_TICKS = 225
    REASON_LIMIT_POSITION_LOTS_MAX = 226
    REASON_LIMIT_POSITION_NOTIONAL_MAX = 227
    REASON_LIMIT_GROSS_EXPOSURE_MAX = 228
    REASON_LIMIT_OPEN_ORDERS_MAX = 229
    REASON_LIMIT_OPEN_NOTIONAL_MAX = 230
    REASON_LIMIT_ORDER_RATE_MAX = 231
    REASON_LIMIT_EXECUTION_RATE_MAX = 232
    REASON_LIMIT_DAILY_TRADED_MAX = 233
    REASON_LIMIT_DAILY_LOSS_MAX = 234
    REASON_LIMIT_DRAWDOWN_MAX = 235
    REASON_LIMIT_LEVERAGE_MAX = 236
    REASON_LIMIT_DELTA_MAX = 237
    REASON_LIMIT_GAMMA_MAX = 238
    REASON_LIMIT_VEGA_MAX = 239
    REASON_LIMIT_CONCENTRATION_MAX = 240
    REASON_LIMIT_DENIED = 241
    REASON_LIMIT_ALLOWED = 242

# --- what the engine keeps -------------------------------------------------------------------

ctypedef struct Tier:
    int64_t floor
    int64_t initial_ppb
    int64_t maintenance_ppb
    int64_t deduction
    int64_t leverage_max

ctypedef struct Ladder:
    Tier tiers[TIERS_MAX]
    int64_t notional_max            # 0 = no bound
    int64_t liquidation_fee_ppb
    uint32_t count
    uint8_t family
    uint8_t basis
    uint8_t closing_fee
    uint8_t reserved

ctypedef struct Schedule:
    Ladder ladder
    uint64_t version
    uint32_t asset_id
    uint32_t reserved
    char name[NAME_SIZE]
    int64_t parameter_a
    int64_t parameter_b
    int64_t parameter_c
    int64_t parameter_d
    int64_t parameter_e

ctypedef struct Mark:
    int64_t price                   # mark units; 0 = never reported
    uint64_t time_ns
    uint64_t volatility_ppb         # 0 = never reported
    int64_t forward                 # mark units; 0 = never reported

ctypedef struct Instrument:
    Mark mark
    int64_t tick_value              # minor units of one lot at one tick
    int64_t units_per_tick
    int64_t value_numerator         # one lot at one mark unit is numerator / denominator
    int64_t value_denominator       # minor units, in lowest terms
    int64_t order_lots_min
    int64_t order_lots_max
    int64_t order_notional_min
    int64_t order_notional_max
    int64_t price_collar_ppb
    int64_t market_buffer_ppb
    int64_t taker_fee_ppb
    uint64_t mark_age_max_ns
    uint64_t expiry_ns
    int64_t strike_units
    int64_t interest_rate_ppb
    int64_t tick_mantissa
    int64_t lot_mantissa
    double unit_price               # quote currency of one mark unit, for the models
    double lot_size                 # underlyings per lot, times the minor units of one
    int32_t tick_exponent
    int32_t lot_exponent
    uint32_t schedule_id
    uint32_t asset_id
    uint32_t underlying_id
    uint8_t kind
    uint8_t option_type
    uint8_t trading_state
    uint8_t isolated_only
    char symbol[NAME_SIZE]
    int64_t multiplier_mantissa
    int64_t quotient                # of inverse contracts: minor units of one lot at 1 tick
    int64_t settlement_price        # mark units; 0 = not settled
    uint64_t funding_time_ns        # of the last funding; 0 = none
    int64_t open_interest_lots      # 0 = never reported
    int32_t multiplier_exponent
    uint32_t option_rule_id         # a schedule of family OPTION_RULE; 0 = cannot be short
    int64_t coin_value              # of options in coin: minor units of one lot per coin
    int64_t base_value              # of spot: minor units of the base asset in one lot
    uint32_t base_asset_id          # of spot, and of contracts that say what they are about
    uint32_t reserved_too

ctypedef struct WorkingSum:
    int64_t lots
    int64_t value
    int64_t open_loss

ctypedef struct Position:
    int64_t lots                    # signed
    int64_t entry_value
    int64_t wallet                  # isolated only
    WorkingSum buy
    WorkingSum sell
    uint32_t account_index
    uint32_t instrument_id
    uint32_t next_of_account        # by rising instrument id, then position side
    uint32_t leverage               # hundredths; 0 = the default; settings are those of NET
    uint32_t working_orders
    uint8_t margin_mode             # 0 = the default
    uint8_t in_use
    uint8_t position_side
    uint8_t margin_level            # isolated only
    uint32_t protective_orders      # of the working ones; counted anew when a snapshot is read
    uint32_t reserved

# Whoever can have limits: an account with its sub-accounts, or a firm.
ctypedef struct Level:
    uint32_t first_limit            # of those for all instruments, by rising kind
    uint32_t instrument_limit_count
    uint32_t allowed_hard           # instruments with an ALLOWED of either action
    uint32_t allowed_soft
    # Of firms and of accounts with sub-accounts only: sums over all their accounts.
    uint32_t first_holding
    uint32_t reserved
    uint64_t working_orders
    i128 working_value
    i128 money                      # cash and isolated wallets
    i128 traded                     # on the day below
    i128 realised
    uint64_t day

# What an account has traded and gained on the day (UTC, since 1970) of its last fill, minor units.
ctypedef struct Usage:
    uint64_t day
    int64_t traded
    int64_t realised

ctypedef struct Account:
    uint64_t account_id
    int64_t cash
    uint32_t asset_id
    uint32_t leverage
    uint32_t first_position
    uint32_t working_orders
    uint8_t margin_mode
    uint8_t trading_state
    uint8_t position_mode
    uint8_t margin_level            # of the pool
    uint32_t first_balance          # by rising asset
    uint32_t parent                 # its place; NOWHERE = none
    uint32_t firm                   # its place; NOWHERE = none
    uint32_t sub_accounts
    uint32_t limit_count            # of those that are set on the account itself
    Usage usage                     # its own, without sub-accounts
    Level level
    int64_t credit_line
    int64_t credit_used

ctypedef struct Order:
    uint64_t reservation_id
    uint64_t client_order_id
    int64_t price_ticks
    int64_t quantity_lots
    int64_t remaining_lots
    int64_t margin_price_ticks
    int64_t open_loss
    uint32_t position_index
    uint32_t gateway_id
    uint32_t flags
    uint8_t side
    uint8_t order_type
    uint8_t time_in_force
    uint8_t in_use
    uint32_t expiry_place           # in the heap of those that expire, from 1; 0 = not in it
    int64_t trigger_price_ticks
    int64_t trailing_offset_ticks
    uint64_t expire_ns
    uint64_t accepted_ns

# An order that does not work any more: late fills, busts and corrections need it.
ctypedef struct ClosedOrder:
    uint64_t reservation_id
    uint64_t client_order_id
    int64_t price_ticks
    int64_t quantity_lots           # 0 = it closed what was open
    int64_t unfilled_lots
    uint32_t account_index
    uint32_t instrument_id
    uint32_t gateway_id
    uint8_t position_side
    uint8_t side
    uint8_t order_type
    uint8_t reserved

# Sums over the positions of one instrument of all accounts of a level. They may be larger than what
# one account can have.
ctypedef struct LevelSums:
    i128 lots                       # signed
    i128 gross_lots                 # of magnitudes
    i128 entry_value                # signed as the lots
    i128 buy_lots
    i128 buy_value
    i128 sell_lots
    i128 sell_value
    uint64_t working_orders
    uint32_t instrument_id
    uint32_t reserved

# The sums of a firm or of an account with sub-accounts; the others have only their positions.
ctypedef struct LevelHolding:
    LevelSums sums
    uint32_t owner                  # place of the account, or of the firm with OWNER_IS_FIRM
    uint32_t next_of_level          # in no order
    uint32_t previous_of_level
    uint8_t in_use

cdef enum: OWNER_IS_FIRM = 0x80000000

ctypedef struct Firm:
    uint32_t firm_id
    uint32_t asset_id
    uint32_t trading_state
    uint32_t limit_count
    Level level
    i128 credit_used                # by all its accounts
    int64_t credit_line
    int64_t reserved

ctypedef struct Limit:
    int64_t value
    int64_t raised_value
    uint64_t raise_until_ns         # 0 = never raised
    uint64_t due_ns                 # of rates: when the next may come, but for the burst
    int64_t peak                    # of drawdown: the highest equity
    uint64_t scope_id
    uint32_t instrument_id          # 0 = all
    uint32_t burst                  # of rates
    uint32_t next                   # of the same scope and instrument, by rising kind; or free
    uint8_t scope
    uint8_t kind
    uint8_t action
    uint8_t in_use

# A change of a margin level.
ctypedef struct RiskEvent:
    uint64_t revision
    uint64_t time_ns
    int64_t equity
    int64_t requirement
    uint32_t account_index
    uint32_t instrument_id          # of an isolated position; 0 = the cross pool
    uint8_t position_side           # 0 = the cross pool
    uint8_t level_before
    uint8_t level_after
    uint8_t reserved

ctypedef struct CollateralTier:
    int64_t floor                   # minor units of the asset
    int64_t weight_ppb

# What an asset counts for accounts in a settlement asset.
ctypedef struct Collateral:
    CollateralTier tiers[COLLATERAL_TIERS_MAX]
    int64_t cap                     # minor units that count; 0 = all
    int64_t liability_ppb
    int64_t interest_free           # minor units of debt
    int64_t forced_conversion       # minor units of debt
    # One minor unit at one mark unit of the index, in minor units of the settlement asset.
    int64_t unit_numerator
    int64_t unit_denominator
    uint32_t asset_id
    uint32_t settlement_asset_id
    uint32_t index_instrument_id
    uint32_t tier_count
    int64_t wrong_way_ppb           # of what contracts on the asset lose with it

# --- what a hot request says -----------------------------------------------------------------

ctypedef struct OrderRequest:
    uint64_t account_id
    uint64_t client_order_id
    int64_t price_ticks
    uint64_t quantity_lots
    int64_t trigger_price_ticks
    int64_t trailing_offset_ticks
    uint64_t expire_time_ns
    uint64_t sent_time_ns
    uint32_t instrument_id
    uint32_t gateway_id
    uint32_t flags
    uint32_t side
    uint32_t order_type
    uint32_t time_in_force
    uint32_t margin_mode
    uint32_t mode
    uint32_t view
    uint32_t position_side

ctypedef struct BatchRequest:
    OrderRequest orders[ORDERS_PER_BATCH_MAX]
    uint32_t count
    uint32_t mode

ctypedef struct AmendmentRequest:
    uint64_t reservation_id
    uint64_t client_order_id
    int64_t price_ticks
    uint64_t quantity_lots
    uint64_t sent_time_ns
    uint32_t gateway_id
    uint32_t view
    int64_t trigger_price_ticks
    int64_t trailing_offset_ticks

ctypedef struct ExecutionRequest:
    uint64_t execution_id
    uint64_t reservation_id
    uint64_t original_execution_id
    int64_t price_ticks
    uint64_t quantity_lots
    int64_t fee_minor
    uint64_t venue_time_ns
    uint32_t gateway_id
    uint32_t kind
    uint32_t instrument_id
    uint32_t fee_asset_id           # 0 = the settlement asset

ctypedef struct ReservationRequest:
    uint64_t reservation_id
    uint64_t client_order_id
    uint32_t gateway_id
    uint32_t reserved

ctypedef struct MarkReport:
    int64_t price
    uint64_t time_ns
    uint64_t volatility_ppb
    int64_t forward
    uint32_t instrument_id
    uint32_t reserved

# --- what a hot reply says -------------------------------------------------------------------

ctypedef struct Violation:
    int64_t limit
    int64_t use
    int64_t order_use
    uint32_t reason
    uint32_t scope                  # of a limit's level, else 0
    uint64_t scope_id
    bint soft
    bint in_lots

ctypedef struct GreeksPico:
    int64_t price
    int64_t delta
    int64_t gamma
    int64_t vega_per_vol_point
    int64_t theta_per_day
    int64_t rho_per_point

ctypedef struct DecisionDetail:
    int64_t initial_margin
    int64_t maintenance_margin
    int64_t unrealised_pnl
    int64_t equity
    int64_t margin_ratio_ppm
    int64_t bankruptcy_price_ticks
    int64_t position_lots
    int64_t mark_price
    uint64_t mark_time_ns
    uint64_t schedule_version
    uint32_t tier_index
    uint32_t leverage
    GreeksPico greeks
    Violation violations[VIOLATIONS_MAX]
    uint32_t violation_count
    bint has_greeks
    bint equity_in_account_asset

ctypedef struct OrderReply:
    uint64_t reservation_id
    uint64_t revision
    int64_t initial_margin
    int64_t available
    int64_t liquidation_price_ticks
    uint64_t max_quantity_lots
    int64_t reserved_margin
    uint64_t quantity_lots          # of an order that did not give it, else 0
    uint32_t decision
    uint32_t reason
    uint32_t liquidation_status
    uint32_t account_asset_id       # of the margins where it is not the instrument's, else 0
    bint margin_unknown
    bint has_detail
    DecisionDetail detail

ctypedef struct ExecutionReply:
    uint64_t revision
    uint64_t remaining_lots
    int64_t position_lots
    int64_t realised_pnl
    int64_t available
    int64_t liquidation_price_ticks
    int64_t isolated_wallet
    uint32_t decision
    uint32_t reason
    uint32_t liquidation_status
    uint32_t account_asset_id       # of available where it is not the instrument's, else 0
    bint margin_unknown
