-- Services of Compose files that are servers of one session. Values of variables that came from elsewhere than the file are
-- among the session's secrets, sealed.
CREATE TABLE session_compose (
    session    TEXT NOT NULL REFERENCES sessions (id),
    server     TEXT NOT NULL,
    definition TEXT NOT NULL CHECK (json_type(definition) = 'object'),
    PRIMARY KEY (session, server)
) STRICT, WITHOUT ROWID;
