-- The log arranged for questions. Everything in here is made from the events, behind them, and can be made again: it is
-- not covered by the chain.
CREATE TABLE audit_records (
    seq       INTEGER NOT NULL PRIMARY KEY, -- of the event that opened it
    record    BLOB    NOT NULL UNIQUE CHECK (length(record) = 16),
    closed    INTEGER,                      -- seq of the event that closed it
    parent    BLOB    CHECK (length(parent) = 16),
    session   TEXT,
    principal TEXT    NOT NULL,
    client    TEXT,
    kind      TEXT    NOT NULL,
    server    TEXT,
    name      TEXT    NOT NULL,
    opened_at INTEGER NOT NULL,
    duration  INTEGER,
    status    TEXT,
    bytes_in  INTEGER NOT NULL,
    bytes_out INTEGER
) STRICT;

CREATE INDEX audit_records_by_time      ON audit_records (opened_at);
CREATE INDEX audit_records_by_session   ON audit_records (session, opened_at) WHERE session IS NOT NULL;
CREATE INDEX audit_records_by_server    ON audit_records (server, opened_at) WHERE server IS NOT NULL;
CREATE INDEX audit_records_by_name      ON audit_records (name, opened_at);
CREATE INDEX audit_records_by_status    ON audit_records (status, opened_at);
CREATE INDEX audit_records_by_principal ON audit_records (principal, opened_at);
CREATE INDEX audit_records_by_client    ON audit_records (client, opened_at) WHERE client IS NOT NULL;
CREATE INDEX audit_records_by_duration  ON audit_records (duration) WHERE duration IS NOT NULL;
CREATE INDEX audit_records_by_parent    ON audit_records (parent) WHERE parent IS NOT NULL;
CREATE INDEX audit_records_by_closing   ON audit_records (closed) WHERE closed IS NOT NULL;
CREATE INDEX audit_records_open         ON audit_records (seq) WHERE closed IS NULL;

-- The words of every event, by its seq: names, arguments, errors, results.
CREATE VIRTUAL TABLE audit_words USING fts5 (words, content = '', contentless_delete = 1, tokenize = 'unicode61');

-- How far the two above are.
CREATE TABLE audit_arranged (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 0),
    seq  INTEGER NOT NULL
) STRICT;
INSERT INTO audit_arranged VALUES (0, 0);

-- Questions by session go to audit_records.
DROP INDEX audit_opened_by_session;

-- The log may be cut at its beginning. What is left begins after `seq`, and its first event covers `hash`.
CREATE TABLE audit_pruned (
    seq  INTEGER NOT NULL PRIMARY KEY,
    hash BLOB    NOT NULL CHECK (length(hash) = 32),
    at   INTEGER NOT NULL
) STRICT;

CREATE TRIGGER audit_pruned_is_final BEFORE UPDATE ON audit_pruned
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
CREATE TRIGGER audit_pruned_stays BEFORE DELETE ON audit_pruned
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;

DROP TRIGGER audit_opened_stays;
DROP TRIGGER audit_closed_stays;
CREATE TRIGGER audit_opened_stays BEFORE DELETE ON audit_opened
WHEN old.seq > (SELECT coalesce(max(seq), 0) FROM audit_pruned)
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
CREATE TRIGGER audit_closed_stays BEFORE DELETE ON audit_closed
WHEN old.seq > (SELECT coalesce(max(seq), 0) FROM audit_pruned)
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;

-- The trace that a call belongs to (W3C trace context: 32 hexadecimal digits). Covered by the chain.
ALTER TABLE audit_opened ADD COLUMN trace TEXT CHECK (length(trace) = 32);
