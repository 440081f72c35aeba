-- A session is the broker's own object: which servers are on, and their config. It is not a transport connection.
-- Times are microseconds since 1970-01-01 UTC.
CREATE TABLE sessions (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    -- How it is found again:
    --   connection  by the Mcp-Session-Id it was made for       process  by nothing: it ends with its process
    --   url         by its URL or its own bearer token          named    by its name
    --   handle      by its id as an argument of the tools       principal  by who asks: servers of the operator's choice
    kind       TEXT    NOT NULL CHECK (kind IN ('connection', 'url', 'process', 'named', 'handle', 'principal')),
    principal  TEXT    NOT NULL,
    name       TEXT    CHECK (length(name) BETWEEN 1 AND 200),
    -- SHA-256 of the session's own bearer token.
    token_hash BLOB    CHECK (length(token_hash) = 32),
    created_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    ended_at   INTEGER,
    end_reason TEXT,
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) STRICT;

CREATE UNIQUE INDEX sessions_by_name ON sessions (name) WHERE name IS NOT NULL AND ended_at IS NULL;
CREATE UNIQUE INDEX sessions_by_token ON sessions (token_hash) WHERE token_hash IS NOT NULL;
CREATE UNIQUE INDEX sessions_of_principals ON sessions (principal) WHERE kind = 'principal' AND ended_at IS NULL;
CREATE INDEX sessions_by_use ON sessions (used_at) WHERE ended_at IS NULL;

-- The servers that are on in a session.
CREATE TABLE session_servers (
    session  TEXT    NOT NULL REFERENCES sessions (id),
    server   TEXT    NOT NULL,
    -- What the names of its tools begin with; fixed when it is added.
    prefix   TEXT    NOT NULL,
    position INTEGER NOT NULL,
    -- The tools that are listed: true, false, or an array of their names.
    activate TEXT    NOT NULL CHECK (json_type(activate) IN ('true', 'false', 'array')),
    added_at INTEGER NOT NULL,
    PRIMARY KEY (session, server),
    UNIQUE (session, prefix)
) STRICT, WITHOUT ROWID;

-- A server's config in a session. It may be set before the server is added, and outlives its removal.
CREATE TABLE session_configs (
    session TEXT    NOT NULL REFERENCES sessions (id),
    server  TEXT    NOT NULL,
    config  TEXT    NOT NULL CHECK (json_type(config) = 'object'),
    set_at  INTEGER NOT NULL,
    PRIMARY KEY (session, server)
) STRICT, WITHOUT ROWID;

-- What a client of a revision up to 2025-11-25 said when it connected, so that its Mcp-Session-Id works after a restart.
CREATE TABLE connections (
    id         TEXT    NOT NULL PRIMARY KEY,
    session    TEXT    NOT NULL REFERENCES sessions (id),
    principal  TEXT    NOT NULL,
    initialize TEXT    CHECK (json_type(initialize) = 'object'),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX connections_by_session ON connections (session);
