-- What the writer does inside a transaction. A statement takes a whole batch and runs in one step: stepping row by row
-- would hand the interpreter lock back and forth with the event loop for each row. What is looked up comes as one JSON
-- array; what is written comes as bound values, the one row of `(?, …)` being repeated for every row of the batch.

-- name: load
-- The named rows with their leases, as one JSON array of [row, id, state, lease or null]. By the unique index on id.
SELECT '[' || coalesce(group_concat(
    '[' || p.row || ',' || json_quote(p.id) || ',' || p.state || ',' ||
    CASE WHEN l.row IS NULL THEN 'null' ELSE json_object(
        'process_id', p.id, 'owner', json_object('name', l.owner, 'incarnation', l.incarnation), 'token', l.token,
        'fence', l.fence, 'claim_id', l.claim_id, 'claimed_at_ms', l.claimed_at, 'expires_at_ms', l.expires_at,
        'boot_id', l.boot_id, 'boot_expires_ms', l.boot_expires_at, 'released', json(iif(l.released, 'true', 'false'))
    ) END || ']'), '') || ']'
FROM json_each(:ids) AS wanted
JOIN processes AS p ON p.id = wanted.value
LEFT JOIN leases AS l ON l.row = p.row;

-- name: load_each
-- The same row by row, for a batch in which some row can't be read. As blobs: text that is no UTF-8 any more is for
-- the decoder to name.
SELECT p.row, p.id, CAST(p.state AS BLOB),
    CASE WHEN l.row IS NULL THEN 'null' ELSE json_object(
        'process_id', p.id, 'owner', json_object('name', l.owner, 'incarnation', l.incarnation), 'token', l.token,
        'fence', l.fence, 'claim_id', l.claim_id, 'claimed_at_ms', l.claimed_at, 'expires_at_ms', l.expires_at,
        'boot_id', l.boot_id, 'boot_expires_ms', l.boot_expires_at, 'released', json(iif(l.released, 'true', 'false'))
    ) END
FROM json_each(:ids) AS wanted
JOIN processes AS p ON p.id = wanted.value
LEFT JOIN leases AS l ON l.row = p.row;

-- name: load_registrations
-- The registrations of rows by their integer names, as one JSON array of [row, registration].
SELECT '[' || coalesce(group_concat('[' || r.row || ',' || r.body || ']'), '') || ']'
FROM json_each(:rows) AS wanted
JOIN registrations AS r ON r.row = wanted.value;

-- name: load_registrations_each
SELECT r.row, CAST(r.body AS BLOB) FROM json_each(:rows) AS wanted JOIN registrations AS r ON r.row = wanted.value;

-- name: find_events
-- Events of the named processes that carry the operation id or the replay key asked for. By the two partial indexes.
SELECT p.id, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM json_each(:names) AS wanted
JOIN processes AS p ON p.id = wanted.value ->> 0
JOIN events AS e INDEXED BY events_operation ON e.row = p.row AND e.operation_id = wanted.value ->> 1
UNION
SELECT p.id, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM json_each(:names) AS wanted
JOIN processes AS p ON p.id = wanted.value ->> 0
JOIN events AS e INDEXED BY events_replay_key ON e.row = p.row AND e.replay_key = wanted.value ->> 2
ORDER BY 1, 2;

-- name: ready
-- The first rows of a lane that are ready, in claim order: priority by priority, each one range of processes_ready, so
-- what isn't ready is never visited, nothing is sorted, and the scan ends at the limit.
-- As one JSON array of [priority, due time, id].
SELECT json_group_array(json_array(priority, ready_at, id)) FROM (
    SELECT p.priority, p.ready_at, p.id FROM processes AS p INDEXED BY processes_ready
    WHERE p.lane = :lane AND p.priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) AND p.ready_at <= :now
    ORDER BY p.priority, p.ready_at, p.id LIMIT :limit);

-- name: lapsed
-- The first rows of a lane whose lease has lapsed, likewise, by leases_lapse. Their due time is 0: as they were claimed
-- before what still waits, they were due before it.
SELECT json_group_array(json_array(priority, 0, (SELECT id FROM processes AS p WHERE p.row = lapsed.row)))
FROM (
    SELECT l.row, l.priority FROM leases AS l INDEXED BY leases_lapse
    WHERE l.lane = :lane AND l.priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) AND l.boot_expires_at <= :boot_now
    ORDER BY l.priority, l.boot_expires_at LIMIT :limit) AS lapsed;

-- name: void
-- Rows of these lanes leased to incarnations that are proved dead, by leases_claim; likewise.
SELECT json_group_array(json_array(priority, 0, (SELECT id FROM processes AS p WHERE p.row = void.row)))
FROM (
    SELECT l.row, l.priority
    FROM json_each(:dead) AS dead CROSS JOIN leases AS l INDEXED BY leases_claim ON l.incarnation = dead.value
    WHERE l.lane IN (SELECT value FROM json_each(:lanes)) LIMIT :limit) AS void;

-- name: void_other_boots
-- A lease of another boot has lapsed, whatever its times say. Run once when a program meets a new boot.
UPDATE leases SET boot_id = :boot_id, boot_expires_at = 0 WHERE boot_id <> :boot_id;

-- name: leased_by_claims
-- [claim id, id] of the rows that these claims, [incarnation, claim id], have leased, as one JSON array.
SELECT json_group_array(json_array(l.claim_id, (SELECT id FROM processes AS p WHERE p.row = l.row)))
FROM json_each(:claims) AS asked CROSS JOIN leases AS l INDEXED BY leases_claim
    ON l.incarnation = asked.value ->> 0 AND l.claim_id = asked.value ->> 1;

-- name: next_change
-- Reserves :count change positions; answers the last of them. The first statement that writes, under the write lock.
UPDATE store SET change = change + :count WHERE one = 1 RETURNING change;

-- name: insert_processes
INSERT INTO processes (row, id, lane, priority, status, ready_at, deadline_at, settle_at, parent, change, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_registrations
INSERT INTO registrations (row, body) VALUES (?, ?);

-- name: save_processes
-- The transition of rows by integer name. Lane, priority and parent never change.
WITH written(row, status, ready_at, deadline_at, settle_at, change, state) AS (VALUES (?, ?, ?, ?, ?, ?, ?))
UPDATE processes SET status = w.status, ready_at = w.ready_at, deadline_at = w.deadline_at, settle_at = w.settle_at,
    change = w.change, state = w.state
FROM written AS w WHERE processes.row = w.row;

-- name: append_events
INSERT INTO events (row, sequence, type, at, replay_key, operation_id, operation_hash, codec, checksum, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: save_leases
INSERT OR REPLACE INTO leases (row, owner, incarnation, token, fence, claim_id, claimed_at, expires_at, boot_id,
    boot_expires_at, released, lane, priority, settle_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: drop_leases
DELETE FROM leases WHERE row IN (SELECT value FROM json_each(:rows));

-- name: save_progress
INSERT OR REPLACE INTO progress (row, body) VALUES (?, ?);

-- name: enrol_owner
INSERT OR REPLACE INTO owners (incarnation, identity) VALUES (:incarnation, :identity);

-- name: withdraw_owner
DELETE FROM owners WHERE incarnation = :incarnation;

-- name: idle_owners
-- Owners that hold no lease: where one is dead, nothing of it is left to be taken over.
SELECT o.identity FROM owners AS o WHERE NOT EXISTS (SELECT 1 FROM leases AS l WHERE l.incarnation = o.incarnation);

-- name: owners
SELECT o.identity FROM owners AS o;

-- name: position
SELECT change FROM store WHERE one = 1;
