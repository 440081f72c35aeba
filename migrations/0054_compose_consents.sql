-- Compose files that a person has agreed to. What was agreed to is what the hash is of: the file, where it is, its files of
-- variables, and the folders it mounts. A file that changes is another one.
CREATE TABLE compose_consents (
    hash      TEXT    NOT NULL PRIMARY KEY CHECK (length(hash) = 64),
    file      TEXT    NOT NULL,
    agreed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
