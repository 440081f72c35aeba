-- What servers said they offer, kept under what was started, so that the next session need not wait for a start.
CREATE TABLE learned_surfaces (
    fingerprint TEXT    NOT NULL PRIMARY KEY,
    server      TEXT    NOT NULL,
    surface     TEXT    NOT NULL CHECK (json_type(surface) = 'object'),
    learned_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
