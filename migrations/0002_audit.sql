-- A record is one event in audit_opened and one in audit_closed. Both tables share one numbering without gaps, in the
-- order of commitment, and every event's hash covers the hash of the event before it.
CREATE TABLE audit_opened (
    seq             INTEGER NOT NULL PRIMARY KEY,
    record          BLOB    NOT NULL UNIQUE CHECK (length(record) = 16),
    at              INTEGER NOT NULL,
    -- The record during which this one was opened.
    parent          BLOB    CHECK (length(parent) = 16),
    session         TEXT,
    principal       TEXT    NOT NULL,
    client          TEXT,
    kind            TEXT    NOT NULL,
    server          TEXT,
    name            TEXT    NOT NULL,
    -- Redacted and cut to a bound; arguments_bytes and arguments_hash are of the whole.
    arguments       TEXT,
    arguments_bytes INTEGER NOT NULL CHECK (arguments_bytes >= 0),
    arguments_hash  BLOB    CHECK (length(arguments_hash) = 32),
    hash            BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE INDEX audit_opened_by_session ON audit_opened (session, seq);

CREATE TABLE audit_closed (
    seq          INTEGER NOT NULL PRIMARY KEY,
    record       BLOB    NOT NULL UNIQUE REFERENCES audit_opened (record),
    at           INTEGER NOT NULL,
    duration     INTEGER NOT NULL CHECK (duration >= 0), -- microseconds
    status       TEXT    NOT NULL CHECK (status IN
                     ('success', 'error', 'refused', 'cancelled', 'timeout', 'input_required', 'abandoned')),
    error        TEXT,
    result       TEXT,
    result_bytes INTEGER NOT NULL CHECK (result_bytes >= 0),
    result_hash  BLOB    CHECK (length(result_hash) = 32),
    hash         BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Neither event is ever changed.
CREATE TRIGGER audit_opened_is_final BEFORE UPDATE ON audit_opened
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
CREATE TRIGGER audit_closed_is_final BEFORE UPDATE ON audit_closed
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
CREATE TRIGGER audit_opened_stays BEFORE DELETE ON audit_opened
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
CREATE TRIGGER audit_closed_stays BEFORE DELETE ON audit_closed
BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
