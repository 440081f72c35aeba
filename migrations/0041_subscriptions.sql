-- Resources that the client of a connection follows, so that it is told of changes after a restart too.
CREATE TABLE subscriptions (
    connection TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    -- As the client names it.
    uri        TEXT NOT NULL,
    server     TEXT NOT NULL,
    -- As the server names it.
    inner_uri  TEXT NOT NULL,
    PRIMARY KEY (connection, uri)
) STRICT, WITHOUT ROWID;
