-- Servers that are one session's alone: what a catalog would say of them.
CREATE TABLE session_entries (
    session  TEXT    NOT NULL REFERENCES sessions (id),
    server   TEXT    NOT NULL,
    entry    TEXT    NOT NULL CHECK (json_type(entry) = 'object'),
    added_at INTEGER NOT NULL,
    PRIMARY KEY (session, server)
) STRICT, WITHOUT ROWID;
