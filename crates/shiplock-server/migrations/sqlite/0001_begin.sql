-- The first schema. A migration that was released is never changed: its checksum is kept in every database.
-- Times are texts of a fixed width (`2026-01-02T03:04:05.000000000Z`), so that they sort as they follow each other.

CREATE TABLE settings (
    key   TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE clusters (
    name              TEXT NOT NULL PRIMARY KEY,
    uid               TEXT NOT NULL UNIQUE,
    server            TEXT NOT NULL,
    sealed_kubeconfig BLOB NOT NULL,
    mirror            TEXT,
    added_at          TEXT NOT NULL
) STRICT;

CREATE TABLE plans (
    id   TEXT NOT NULL PRIMARY KEY,
    data TEXT NOT NULL
) STRICT;

-- A cluster may be forgotten while its logs stay, so `cluster` refers to nothing.
CREATE TABLE upgrades (
    id              TEXT NOT NULL PRIMARY KEY,
    cluster         TEXT NOT NULL,
    cluster_uid     TEXT NOT NULL,
    first_position  INTEGER NOT NULL UNIQUE,
    len             INTEGER NOT NULL,
    created_at      TEXT NOT NULL,
    newest_at       TEXT NOT NULL,
    ended_as        TEXT,
    idempotency_key TEXT UNIQUE
) STRICT;
CREATE INDEX upgrades_of_cluster ON upgrades (cluster, first_position);
-- Unique only to tell the planner so: it then reads all active logs in order without sorting them.
CREATE UNIQUE INDEX active_upgrades ON upgrades (first_position) WHERE ended_as IS NULL;
CREATE UNIQUE INDEX one_active_upgrade_of_cluster ON upgrades (cluster_uid) WHERE ended_as IS NULL;

CREATE TABLE events (
    position INTEGER NOT NULL PRIMARY KEY,
    upgrade  TEXT NOT NULL REFERENCES upgrades (id),
    number   INTEGER NOT NULL,
    at       TEXT NOT NULL,
    epoch    INTEGER,
    v        INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    data     TEXT NOT NULL,
    UNIQUE (upgrade, number)
) STRICT;

-- The newest position of the whole store.
CREATE TABLE counters (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO counters (name, value) VALUES ('position', 0);

CREATE TABLE leases (
    upgrade    TEXT NOT NULL PRIMARY KEY REFERENCES upgrades (id),
    holder     TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at TEXT NOT NULL,
    released   INTEGER NOT NULL
) STRICT;

-- Kept when a cluster is forgotten: an epoch never goes back, whatever name the cluster has.
CREATE TABLE epochs (
    cluster_uid TEXT NOT NULL PRIMARY KEY,
    epoch       INTEGER NOT NULL
) STRICT;

CREATE TABLE join_tokens (
    hash       TEXT NOT NULL PRIMARY KEY,
    cluster    TEXT NOT NULL REFERENCES clusters (name),
    expires_at TEXT NOT NULL
) STRICT;
CREATE INDEX join_tokens_of_cluster ON join_tokens (cluster);
CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);

CREATE TABLE agents (
    cluster     TEXT NOT NULL REFERENCES clusters (name),
    node        TEXT NOT NULL,
    serial      TEXT NOT NULL,
    machine     TEXT NOT NULL,
    enrolled_at TEXT NOT NULL,
    PRIMARY KEY (cluster, node)
) STRICT;
