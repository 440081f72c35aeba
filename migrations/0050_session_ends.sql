-- A session that a program made may say when it ends by itself, and carry a label to be found by.
ALTER TABLE sessions ADD COLUMN expires_at INTEGER;
ALTER TABLE sessions ADD COLUMN label TEXT CHECK (length(label) BETWEEN 1 AND 200);
CREATE INDEX sessions_by_label ON sessions (label) WHERE label IS NOT NULL AND ended_at IS NULL;
