-- What a diagnosis reads, each on a connection that can't write.

-- name: owners
-- Every enrolled owner with the number of leases it holds, and every holder without an owner's row.
SELECT coalesce(o.incarnation, l.incarnation), o.identity, coalesce(l.held, 0), coalesce(l.owner, '')
FROM owners AS o
FULL JOIN (SELECT incarnation, min(owner) AS owner, count(*) AS held FROM leases WHERE NOT released GROUP BY incarnation)
    AS l ON l.incarnation = o.incarnation
ORDER BY 1;

-- name: unended
-- Running rows with their leases: the ones that a diagnosis must look at.
SELECT p.id, r.body, p.state, l.owner, l.incarnation, l.token, l.fence, l.claim_id, l.claimed_at, l.expires_at,
       l.boot_id, l.boot_expires_at, l.released
FROM processes AS p JOIN registrations AS r ON r.row = p.row LEFT JOIN leases AS l ON l.row = p.row
WHERE p.status IN ('running', 'caller_departed') ORDER BY p.id;

-- name: statuses
SELECT status, count(*) FROM processes GROUP BY status ORDER BY status;

-- name: ids_of_status
SELECT id FROM processes WHERE status = :status ORDER BY id LIMIT :limit;

-- name: newest_event
-- The latest time that was written among the last rows that changed. By the unique index on change.
SELECT max(iif(json_valid(state), state, '{}') ->> 'updated_at_ms')
FROM (SELECT state FROM processes ORDER BY change DESC LIMIT 100);

-- name: lease_clocks
-- How far wall time stood before boot time when each standing lease of this boot was last written.
SELECT DISTINCT expires_at - boot_expires_at FROM leases WHERE boot_id = :boot_id AND boot_expires_at > 0 LIMIT 1000;

-- name: count_processes
SELECT count(*) FROM processes;

-- name: some_processes
-- The next rows in order of their integer names, for a walk over everything.
SELECT p.row, p.id, p.lane, p.priority, p.status, p.ready_at, p.deadline_at, p.settle_at, p.parent, r.body, p.state
FROM processes AS p LEFT JOIN registrations AS r ON r.row = p.row
WHERE p.row > :after ORDER BY p.row LIMIT :limit;

-- name: their_events
SELECT row, sequence, type, payload, at, replay_key, operation_id, operation_hash, codec, checksum FROM events
WHERE row > :after AND row <= :last ORDER BY row, sequence;

-- name: strays
-- Rows that belong to no process.
SELECT 'events', row FROM events WHERE row NOT IN (SELECT row FROM processes) GROUP BY row
UNION ALL
SELECT 'registrations', row FROM registrations WHERE row NOT IN (SELECT row FROM processes)
UNION ALL
SELECT 'leases', row FROM leases WHERE row NOT IN (SELECT row FROM processes);
