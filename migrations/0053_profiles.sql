-- Profiles: servers under a name, to be put into sessions. No secret's value is in them.
-- Times are microseconds since 1970-01-01 UTC.
CREATE TABLE profiles (
    -- Two names that differ in case only would be taken for each other.
    name        TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE CHECK (length(name) BETWEEN 1 AND 64),
    description TEXT    NOT NULL CHECK (length(description) <= 1000),
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE profile_servers (
    profile  TEXT    NOT NULL COLLATE NOCASE REFERENCES profiles (name) ON DELETE CASCADE,
    server   TEXT    NOT NULL,
    position INTEGER NOT NULL,
    config   TEXT    NOT NULL CHECK (json_type(config) = 'object'),
    -- The tools that are listed: true, false, or an array of their names.
    activate TEXT    NOT NULL CHECK (json_type(activate) IN ('true', 'false', 'array')),
    PRIMARY KEY (profile, server)
) STRICT, WITHOUT ROWID;
