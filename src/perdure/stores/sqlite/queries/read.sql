-- What readers do, each in a short read transaction of its own on a connection that can't write.

-- name: records
-- Records by id, as one JSON array of [registration, state]. By the unique index on id.
SELECT '[' || coalesce(group_concat('[' || r.body || ',' || p.state || ']'), '') || ']'
FROM json_each(:ids) AS wanted
JOIN processes AS p ON p.id = wanted.value
JOIN registrations AS r ON r.row = p.row;

-- name: record
-- As blobs: text that is no UTF-8 any more is for the decoder to name.
SELECT CAST(r.body AS BLOB), CAST(p.state AS BLOB) FROM processes AS p JOIN registrations AS r ON r.row = p.row WHERE p.id = :id;

-- name: ended_among
-- Of these ids, the ones that are live no more or unknown, as one JSON array. By the unique index on id.
SELECT json_group_array(wanted.value) FROM json_each(:ids) AS wanted
LEFT JOIN processes AS p ON p.id = wanted.value
WHERE coalesce(p.status, '') NOT IN ('pending', 'running', 'waiting');

-- name: lease
SELECT l.owner, l.incarnation, l.token, l.fence, l.claim_id, l.claimed_at, l.expires_at, l.boot_id,
       l.boot_expires_at, l.released
FROM processes AS p JOIN leases AS l ON l.row = p.row WHERE p.id = :id;

-- name: progress_of
-- How far these processes said they had come. As blobs: text that is no UTF-8 any more is for the decoder to name.
SELECT p.id, CAST(g.body AS BLOB) FROM json_each(:ids) AS wanted
JOIN processes AS p ON p.id = wanted.value
JOIN progress AS g ON g.row = p.row;

-- name: list
-- One page in order of id; each condition is off while its parameter is null.
SELECT p.id, r.body, p.state FROM processes AS p JOIN registrations AS r ON r.row = p.row
WHERE p.id > :after
  AND (:statuses IS NULL OR p.status IN (SELECT value FROM json_each(:statuses)))
  AND (:definition IS NULL OR substr(p.lane, instr(p.lane, '/') + 1, length(:definition) + 1) = :definition || '@')
  AND (:queue IS NULL OR substr(p.lane, 1, length(:queue) + 1) = :queue || '|')
  AND (:parent IS NULL OR p.parent = :parent)
  AND (:prefix IS NULL OR substr(p.id, 1, length(:prefix)) = :prefix)
ORDER BY p.id LIMIT :limit;

-- name: count
SELECT count(*) FROM processes AS p
WHERE (:statuses IS NULL OR p.status IN (SELECT value FROM json_each(:statuses)))
  AND (:definition IS NULL OR substr(p.lane, instr(p.lane, '/') + 1, length(:definition) + 1) = :definition || '@')
  AND (:queue IS NULL OR substr(p.lane, 1, length(:queue) + 1) = :queue || '|')
  AND (:parent IS NULL OR p.parent = :parent)
  AND (:prefix IS NULL OR substr(p.id, 1, length(:prefix)) = :prefix);

-- name: row_of
SELECT row FROM processes WHERE id = :id;

-- name: events_after
SELECT sequence, type, payload, at, replay_key, operation_id, operation_hash, codec, checksum FROM events
WHERE row = :row AND sequence > :after ORDER BY sequence LIMIT :limit;

-- name: recent_events
SELECT sequence, type, payload, at, replay_key, operation_id, operation_hash, codec, checksum FROM events
WHERE row = :row ORDER BY sequence DESC LIMIT :limit;

-- name: find_event
SELECT sequence, type, payload, at, replay_key, operation_id, operation_hash, codec, checksum FROM events
WHERE row = :row AND type = :type AND sequence > :after ORDER BY sequence LIMIT 1;

-- name: next_due
-- The earliest of: a row of these lanes becoming ready, a lapse of theirs, a deadline, an unsettled end; all after now.
-- Lapses are in boot time, and are answered as wall time.
SELECT min(due) FROM (
    SELECT (SELECT p.ready_at FROM processes AS p INDEXED BY processes_ready
            WHERE p.lane = seek.value ->> 0 AND p.priority = seek.value ->> 1 AND p.ready_at > :now
            ORDER BY p.ready_at LIMIT 1) AS due FROM json_each(:seeks) AS seek
    UNION ALL
    SELECT (SELECT l.boot_expires_at - :boot_now + :now FROM leases AS l INDEXED BY leases_lapse
            WHERE l.lane = seek.value ->> 0 AND l.priority = seek.value ->> 1 AND l.boot_expires_at > :boot_now
            ORDER BY l.boot_expires_at LIMIT 1) FROM json_each(:seeks) AS seek
    UNION ALL
    SELECT (SELECT deadline_at FROM processes WHERE deadline_at > :now ORDER BY deadline_at LIMIT 1)
    UNION ALL
    SELECT (SELECT settle_at FROM processes WHERE settle_at > :now ORDER BY settle_at LIMIT 1)
    UNION ALL
    SELECT (SELECT min(max(l.settle_at, l.boot_expires_at - :boot_now + :now)) FROM leases AS l
            WHERE l.settle_at IS NOT NULL AND max(l.settle_at, l.boot_expires_at - :boot_now + :now) > :now)
);

-- name: due_for_settling
-- Ids of rows that a settling pass must look at, as one JSON array. By the three partial indexes.
SELECT json_group_array(id) FROM (
    SELECT id FROM (SELECT id FROM processes WHERE settle_at <= :now ORDER BY settle_at LIMIT :limit)
    UNION
    SELECT id FROM (SELECT id FROM processes WHERE deadline_at <= :now ORDER BY deadline_at LIMIT :limit)
    UNION
    SELECT p.id FROM (
        SELECT row FROM leases
        WHERE settle_at <= :now AND (boot_expires_at <= :boot_now
              OR incarnation IN (SELECT value FROM json_each(:dead)))
        LIMIT :limit) AS l JOIN processes AS p ON p.row = l.row
    LIMIT :limit
);

-- name: holders
-- The owners whose death would change something, with their evidence: they hold a lease whose row would be claimable
-- or due for settling. One step of leases_claim per owner, then its leases up to the first such.
WITH RECURSIVE holders(incarnation) AS (
    SELECT min(incarnation) FROM leases
    UNION ALL
    SELECT (SELECT min(incarnation) FROM leases WHERE incarnation > holders.incarnation)
    FROM holders WHERE holders.incarnation IS NOT NULL
)
SELECT h.incarnation, o.identity FROM holders AS h LEFT JOIN owners AS o ON o.incarnation = h.incarnation
WHERE h.incarnation IS NOT NULL AND EXISTS (
    SELECT 1 FROM leases AS l
    WHERE l.incarnation = h.incarnation AND (l.lane IS NOT NULL OR l.settle_at IS NOT NULL));

-- name: position
SELECT change FROM store WHERE one = 1;

-- name: changed_since
SELECT json_group_array(id), count(*) FROM (SELECT id FROM processes WHERE change > :position ORDER BY change LIMIT :limit);
