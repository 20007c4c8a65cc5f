-- The first schema. Payloads are JSON text; times are milliseconds. A row's integer name is the change position of
-- its first write, so it never comes again.

-- One row per process: what it is found by, and the folded state. Written at every transition, so it stays narrow.
CREATE TABLE processes (
    row         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    lane        TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    status      TEXT    NOT NULL,
    ready_at    INTEGER,
    deadline_at INTEGER,
    settle_at   INTEGER,
    parent      TEXT,
    change      INTEGER NOT NULL,
    state       TEXT    NOT NULL
) STRICT;

-- The order in which rows are claimed, of those that can be.
CREATE INDEX processes_ready    ON processes (lane, priority, ready_at, id) WHERE ready_at IS NOT NULL;
CREATE INDEX processes_deadline ON processes (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX processes_settle   ON processes (settle_at) WHERE settle_at IS NOT NULL;
CREATE INDEX processes_parent   ON processes (parent) WHERE parent IS NOT NULL;
-- The order in which rows were last written.
CREATE UNIQUE INDEX processes_change ON processes (change);

-- What was declared, written once; apart from the state so that a transition never rewrites an input.
CREATE TABLE registrations (
    row  INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

-- The logs.
CREATE TABLE events (
    row            INTEGER NOT NULL,
    sequence       INTEGER NOT NULL,
    type           TEXT    NOT NULL,
    at             INTEGER NOT NULL,
    replay_key     TEXT,
    operation_id   TEXT,
    operation_hash TEXT,
    codec          INTEGER NOT NULL,
    checksum       INTEGER NOT NULL,
    payload        TEXT    NOT NULL,
    PRIMARY KEY (row, sequence)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX events_replay_key ON events (row, replay_key) WHERE replay_key IS NOT NULL;
CREATE INDEX events_operation ON events (row, operation_id) WHERE operation_id IS NOT NULL;

-- The standing leases. `lane` and `priority` are set while a lapse makes the row claimable, `settle_at` while a
-- lapse makes it due for settling. All rows are of one boot: the first program of a new boot voids the older ones.
CREATE TABLE leases (
    row             INTEGER PRIMARY KEY,
    owner           TEXT    NOT NULL,
    incarnation     TEXT    NOT NULL,
    token           TEXT    NOT NULL,
    fence           INTEGER NOT NULL,
    claim_id        TEXT    NOT NULL,
    claimed_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    boot_id         TEXT    NOT NULL,
    boot_expires_at INTEGER NOT NULL,
    released        INTEGER NOT NULL,
    lane            TEXT,
    priority        INTEGER NOT NULL,
    settle_at       INTEGER
) STRICT;

CREATE INDEX leases_lapse ON leases (lane, priority, boot_expires_at) WHERE lane IS NOT NULL;
CREATE INDEX leases_claim ON leases (incarnation, claim_id);
CREATE INDEX leases_settle ON leases (settle_at) WHERE settle_at IS NOT NULL;

-- Who may hold leases, with the evidence that lets others prove its death.
CREATE TABLE owners (
    incarnation TEXT PRIMARY KEY,
    identity    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The change position, and the epoch that a restore changes: positions of two epochs can't be compared.
CREATE TABLE store (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    change INTEGER NOT NULL,
    epoch  TEXT    NOT NULL
) STRICT;

INSERT INTO store (one, change, epoch) VALUES (1, 0, lower(hex(randomblob(16))));
