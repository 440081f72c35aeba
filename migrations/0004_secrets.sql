-- Values are sealed with XChaCha20-Poly1305 under the data folder's key; scope and name are bound to them.
CREATE TABLE secrets (
    -- The session that it is for, or empty for every session.
    scope      TEXT    NOT NULL,
    name       TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    nonce      BLOB    NOT NULL CHECK (length(nonce) = 24),
    ciphertext BLOB    NOT NULL,
    set_at     INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
