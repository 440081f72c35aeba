-- Switches that were set by command; one that is not here has its default.
CREATE TABLE features (
    name    TEXT    NOT NULL PRIMARY KEY,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    set_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
