-- What tools of servers do, in the servers' own words, for finding a server that does not run. Only what was said without a
-- session's own config: every session can search for it.
CREATE TABLE learned_tools (
    server      TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL, -- the beginning of it
    learned_at  INTEGER NOT NULL, -- when it was last said
    PRIMARY KEY (server, name)
) STRICT, WITHOUT ROWID;
