-- How far a process says it has come: the last value only, beside the log and apart from the state, as it is written
-- once a second while the process runs and changes nothing that a process is found by.
CREATE TABLE progress (
    row  INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
