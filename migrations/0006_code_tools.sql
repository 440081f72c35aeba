-- Tools that a session has made of scripts: `code-mode-<name>`, and the servers that their scripts may call.
CREATE TABLE session_code_tools (
    session TEXT    NOT NULL REFERENCES sessions (id),
    name    TEXT    NOT NULL,
    servers TEXT    NOT NULL CHECK (json_type(servers) = 'array'),
    made_at INTEGER NOT NULL,
    PRIMARY KEY (session, name)
) STRICT, WITHOUT ROWID;
