-- The shapes of what tools without an output schema have returned, never a value: scripts are written against them. Kept
-- under what was started, as learned surfaces are, and each tool's name.
CREATE TABLE result_shapes (
    fingerprint TEXT    NOT NULL,
    tool        TEXT    NOT NULL,
    server      TEXT    NOT NULL,
    shape       TEXT    NOT NULL CHECK (json_type(shape) = 'object'),
    learned_at  INTEGER NOT NULL,
    PRIMARY KEY (fingerprint, tool)
) STRICT, WITHOUT ROWID;
