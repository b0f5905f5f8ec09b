-- Reports of the pre-check, and findings that somebody lets pass. Both go with their cluster.
CREATE TABLE reports (
    id      TEXT NOT NULL PRIMARY KEY,
    cluster TEXT NOT NULL REFERENCES clusters (name),
    made_at TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX reports_of_cluster ON reports (cluster, made_at);

CREATE TABLE acceptances (
    id      TEXT NOT NULL PRIMARY KEY,
    cluster TEXT NOT NULL REFERENCES clusters (name),
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX acceptances_of_cluster ON acceptances (cluster);
