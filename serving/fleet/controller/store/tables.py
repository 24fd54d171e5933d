"""The tables. Rows of episodes, blocks, kills and the log are only ever added or marked, never taken out."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, text

TABLES = MetaData()  # what a document counts up to 2**53 is a BigInteger: PostgreSQL's Integer ends at 2**31
_PREFIX = "actwright_fleet_"
_NAME, _DIGEST = String(64), String(64)
_WAITS = text("block IS NULL AND success IS NOT NULL")  # of an episode: it may still enter a block
_GOES_ON = text("until_s IS NULL")  # of a span: the newest report of its cell still tells it

# what is proposed to a cell: release, shadow, rollout, plan, stage, reason, back_to; revision grows with each change of it.
# report: the last one, as JSON; sequence, boot and seen_at_s are of it
CELLS = Table(
    f"{_PREFIX}cells",
    TABLES,
    Column("name", _NAME, primary_key=True),
    Column("site", _NAME, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("enrolled_by", String(256), nullable=False),
    Column("enrolled_at_s", Float, nullable=False),
    Column("sequence", BigInteger, nullable=False, default=0),
    Column("boot", String(200), nullable=False, default=""),
    Column("seen_at_s", Float, nullable=False, default=0.0),
    Column("report", Text, nullable=False, default=""),
    Column("revision", BigInteger, nullable=False, default=0),
    Column("release", _DIGEST, nullable=False, default=""),
    Column("shadow", _DIGEST, nullable=False, default=""),
    Column("rollout", Integer),
    Column("plan", _NAME, nullable=False, default=""),
    Column("stage", _NAME, nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Column("back_to", Text, nullable=False, default=""),
)

# success: None where the episode is not counted. side, rollout: of which rollout it is evidence. block: that it is part of, None: not yet
EPISODES = Table(
    f"{_PREFIX}episodes",
    TABLES,
    Column("cell", _NAME, primary_key=True),
    Column("id", _NAME, primary_key=True),
    Column("boot", String(200), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("release", _DIGEST, nullable=False),
    Column("task", String(200), nullable=False),
    Column("site", _NAME, nullable=False),
    Column("started_at_s", Float, nullable=False),
    Column("ended_at_s", Float, nullable=False),
    Column("received_at_s", Float, nullable=False),
    Column("success", Integer),
    Column("interventions", BigInteger, nullable=False),
    Column("clips", BigInteger, nullable=False),
    Column("holds", BigInteger, nullable=False),
    Column("deadline_misses", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
    Column("novelty", Float),
    Column("cut_by", String(200), nullable=False),
    Column("rollout", Integer),
    Column("side", String(3)),
    Column("block", Integer),
    Index(f"{_PREFIX}block_episodes", "rollout", "block"),
    Index(f"{_PREFIX}waiting_episodes", "rollout", "task", "site", "side", "started_at_s", sqlite_where=_WAITS, postgresql_where=_WAITS),
)

# sums over episodes, kept in the transaction that adds them, so that no look reads all of them. rollout: 0 for those that are no
# evidence. episodes: all of them; trials: the counted ones, longest_s of these. interventions to novelty: episodes with such an event
TALLIES = Table(
    f"{_PREFIX}tallies",
    TABLES,
    Column("rollout", Integer, primary_key=True, autoincrement=False),
    Column("release", _DIGEST, primary_key=True),
    Column("task", String(200), primary_key=True),
    Column("site", _NAME, primary_key=True),
    Column("longest_s", Float, nullable=False),
    Column("episodes", Integer, nullable=False),
    Column("trials", Integer, nullable=False),
    Column("successes", Integer, nullable=False),
    Column("interventions", Integer, nullable=False),
    Column("clips", Integer, nullable=False),
    Column("holds", Integer, nullable=False),
    Column("deadline_misses", Integer, nullable=False),
    Column("refusals", Integer, nullable=False),
    Column("novelty", Integer, nullable=False),
)

# state: a `RolloutState` as JSON, replaced as a whole where `version` is the one that was read. history: stratum -> [successes, trials] of
# the old release before the rollout, as JSON; longest_s: the longest of those episodes
ROLLOUTS = Table(
    f"{_PREFIX}rollouts",
    TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("plan", Text, nullable=False),
    Column("baseline", _DIGEST, nullable=False),
    Column("history", Text, nullable=False),
    Column("longest_s", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("started_by", String(256), nullable=False),
)

# spans of time for which a cell is known to have run a release ("" for none), by the controller's clock. until_s: NULL while every report
# tells the same without a long silence, so that it lasts to the cell's seen_at_s. episode: its id where one tells it, "" where reports do
RAN = Table(
    f"{_PREFIX}ran",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("cell", _NAME, nullable=False),
    Column("site", _NAME, nullable=False),
    Column("release", _DIGEST, nullable=False),
    Column("from_s", Float, nullable=False),
    Column("until_s", Float),
    Column("episode", _NAME, nullable=False),
    Index(f"{_PREFIX}ran_by_cell", "cell", "from_s"),
    Index(f"{_PREFIX}ran_by_release", "release"),
    Index(f"{_PREFIX}ran_going_on", "cell", sqlite_where=_GOES_ON, postgresql_where=_GOES_ON),
)

# what a cell found of the candidate that a rollout lets answer in shadow. sums: a `Shadowed` as JSON
SHADOWS = Table(
    f"{_PREFIX}shadows",
    TABLES,
    Column("rollout", Integer, primary_key=True, autoincrement=False),
    Column("cell", _NAME, primary_key=True),
    Column("task", String(200), primary_key=True),
    Column("sums", Text, nullable=False),
)

BLOCKS = Table(
    f"{_PREFIX}blocks",
    TABLES,
    Column("rollout", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("stratum", String(280), nullable=False),
    Column("new_successes", Integer, nullable=False),
    Column("new_trials", Integer, nullable=False),
    Column("old_successes", Integer, nullable=False),
    Column("old_trials", Integer, nullable=False),
    Column("closed_at_s", Float, nullable=False),
)

# release_asked_by: the first of the two persons who release it
KILLS = Table(
    f"{_PREFIX}kills",
    TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("scope", String(16), nullable=False),
    Column("target", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("ordered_by", String(256), nullable=False),
    Column("ordered_at_s", Float, nullable=False),
    Column("release_asked_by", String(256), nullable=False, default=""),
    Column("released_by", String(256), nullable=False, default=""),
    Column("released_at_s", Float),
)

RELEASES = Table(
    f"{_PREFIX}releases",
    TABLES,
    Column("digest", _DIGEST, primary_key=True),
    Column("model_version", String(200), nullable=False),
    Column("allowed_by", Text, nullable=False),
    Column("override_name", Text, nullable=False, default=""),
    Column("override_reason", Text, nullable=False, default=""),
    Column("offered_by", String(256), nullable=False),
    Column("offered_at_s", Float, nullable=False),
)

REQUESTS = Table(
    f"{_PREFIX}requests",
    TABLES,
    Column("model", String(256), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("alias", String(128), nullable=False),
    Column("asked_at_s", Float, nullable=False),
    Column("source", String(64), nullable=False),
)

# what a person decided of a request. release: digest that may be rolled out for it. rollout: that was started for it, NULL before
DECISIONS = Table(
    f"{_PREFIX}request_decisions",
    TABLES,
    Column("model", String(256), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("is_approved", Boolean, nullable=False),
    Column("release", _DIGEST, nullable=False),
    Column("decided_by", String(256), nullable=False),
    Column("decided_at_s", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rollout", Integer),
)

SETTINGS = Table(f"{_PREFIX}settings", TABLES, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))

LOG = Table(
    f"{_PREFIX}log",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_s", Float, nullable=False),
    Column("subject", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", _DIGEST, nullable=False),
    Column("hash", _DIGEST, nullable=False),
)
