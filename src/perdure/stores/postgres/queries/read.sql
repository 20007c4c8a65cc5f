-- What readers do, each statement a transaction of its own.

-- name: records
-- Records by id. By the unique index on id.
SELECT p.id, r.body, p.state FROM perdure.processes AS p JOIN perdure.registrations AS r ON r.row = p.row
WHERE p.id = ANY (:ids::text[]);

-- name: ended_among
-- Of these ids, the ones that are live no more or unknown.
SELECT array_agg(wanted.id ORDER BY wanted.place)
FROM unnest(:ids::text[]) WITH ORDINALITY AS wanted(id, place) LEFT JOIN perdure.processes AS p ON p.id = wanted.id
WHERE coalesce(p.status, '') NOT IN ('pending', 'running', 'waiting');

-- name: lease
SELECT perdure.lease_text(p.id, l) FROM perdure.processes AS p JOIN perdure.leases AS l ON l.row = p.row WHERE p.id = :id;

-- name: progress_of
-- How far these processes said they had come.
SELECT p.id, g.body FROM perdure.processes AS p JOIN perdure.progress AS g ON g.row = p.row WHERE p.id = ANY (:ids::text[]);

-- name: list
-- One page in order of id; each condition is off while its parameter is null. '{' sorts after all that an id may have.
SELECT p.id, r.body, p.state FROM perdure.processes AS p JOIN perdure.registrations AS r ON r.row = p.row
WHERE p.id > :after
  AND (:statuses::text[] IS NULL OR p.status = ANY (:statuses::text[]))
  AND (:definition::text IS NULL OR starts_with(substr(p.lane, strpos(p.lane, '/') + 1), :definition::text || '@'))
  AND (:queue::text IS NULL OR starts_with(p.lane, :queue::text || '|'))
  AND (:parent::text IS NULL OR p.parent = :parent::text)
  AND starts_with(p.id, coalesce(:prefix::text, '')) AND p.id >= coalesce(:prefix::text, '') AND p.id < coalesce(:prefix::text, '') || '{'
ORDER BY p.id LIMIT :limit::integer;

-- name: count
SELECT count(*) FROM perdure.processes AS p
WHERE (:statuses::text[] IS NULL OR p.status = ANY (:statuses::text[]))
  AND (:definition::text IS NULL OR starts_with(substr(p.lane, strpos(p.lane, '/') + 1), :definition::text || '@'))
  AND (:queue::text IS NULL OR starts_with(p.lane, :queue::text || '|'))
  AND (:parent::text IS NULL OR p.parent = :parent::text)
  AND starts_with(p.id, coalesce(:prefix::text, '')) AND p.id >= coalesce(:prefix::text, '') AND p.id < coalesce(:prefix::text, '') || '{';

-- name: events_after
-- Row null: there is no such process. With no event past the sequence the one row has no event.
SELECT p.row, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM perdure.processes AS p
LEFT JOIN LATERAL (SELECT * FROM perdure.events AS e WHERE e.row = p.row AND e.sequence > :after
                   ORDER BY e.sequence LIMIT :limit::integer) AS e ON TRUE
WHERE p.id = :id ORDER BY e.sequence;

-- name: recent_events
SELECT p.row, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM perdure.processes AS p
LEFT JOIN LATERAL (SELECT * FROM perdure.events AS e WHERE e.row = p.row ORDER BY e.sequence DESC LIMIT :limit::integer) AS e ON TRUE
WHERE p.id = :id ORDER BY e.sequence;

-- name: find_event
SELECT p.row, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM perdure.processes AS p
LEFT JOIN LATERAL (SELECT * FROM perdure.events AS e WHERE e.row = p.row AND e.sequence > :after AND e.type = :type
                   ORDER BY e.sequence LIMIT 1) AS e ON TRUE
WHERE p.id = :id;

-- name: next_due
SELECT perdure.next_due(:lanes, :now, :boot_now);

-- name: due_for_settling
-- Ids of rows that a settling pass must look at. By the three partial indexes.
SELECT array_agg(due.id ORDER BY due.id) FROM (
    SELECT id FROM (SELECT id FROM perdure.processes WHERE settle_at <= :now::bigint ORDER BY settle_at LIMIT :limit::integer) AS unsettled
    UNION
    SELECT id FROM (SELECT id FROM perdure.processes WHERE deadline_at <= :now::bigint ORDER BY deadline_at LIMIT :limit::integer) AS late
    UNION
    SELECT p.id FROM (
        SELECT row FROM perdure.leases
        WHERE settle_at <= :now::bigint AND (boot_expires_at <= :boot_now::bigint OR incarnation = ANY (:dead::text[]))
        LIMIT :limit::integer) AS l JOIN perdure.processes AS p ON p.row = l.row
    ORDER BY 1 LIMIT :limit::integer
) AS due;

-- name: idle_owners
-- Owners that hold no lease: where one is dead, nothing of it is left to be taken over.
SELECT o.identity FROM perdure.owners AS o
WHERE NOT EXISTS (SELECT 1 FROM perdure.leases AS l WHERE l.incarnation = o.incarnation) ORDER BY o.incarnation LIMIT 1000;

-- name: owners
-- Every enrolled owner; as many as there are workers, and those that died on other machines.
SELECT o.identity FROM perdure.owners AS o ORDER BY o.incarnation LIMIT 10000;

-- name: holders
-- The owners whose death would change something, with their evidence: they hold a lease whose row would be claimable
-- or due for settling. One step of leases_claim per owner, then its leases up to the first such.
WITH RECURSIVE holders(incarnation) AS (
    SELECT min(incarnation) FROM perdure.leases
    UNION ALL
    SELECT (SELECT min(l.incarnation) FROM perdure.leases AS l WHERE l.incarnation > holders.incarnation)
    FROM holders WHERE holders.incarnation IS NOT NULL
)
SELECT o.identity FROM holders AS h JOIN perdure.owners AS o ON o.incarnation = h.incarnation
WHERE EXISTS (SELECT 1 FROM perdure.leases AS l
              WHERE l.incarnation = h.incarnation AND (l.lane IS NOT NULL OR l.settle_at IS NOT NULL));

-- name: look
-- Which transactions have ended by now, as xmin:xmax:those between that have not; the time; for which processes something
-- is posted; and ids of the rows that were written by transactions which have ended since an earlier look and are not
-- our own (`own`): those from `seen_end` on, `most` at most, and those that were open then. By the indexes on change.
SELECT now.snapshot::text, perdure.now_ms(),
       ARRAY(SELECT p.process_id FROM perdure.posted AS p ORDER BY p.number LIMIT 100),
       ARRAY(SELECT p.id FROM (
                 SELECT e.row FROM perdure.events AS e WHERE e.change = ANY (ended.changes)
                 UNION
                 SELECT r.row FROM perdure.registrations AS r WHERE r.change = ANY (ended.changes)
             ) AS changed JOIN perdure.processes AS p ON p.row = changed.row LIMIT :limit::integer)
FROM (SELECT pg_current_snapshot() AS snapshot) AS now,
LATERAL (SELECT ARRAY(
    SELECT x.change FROM (
        SELECT generate_series(:seen_end::bigint, least(:seen_end::bigint + :most::bigint,
                                                        pg_snapshot_xmax(now.snapshot)::text::bigint) - 1)
        UNION ALL SELECT unnest(:seen_open::bigint[])
    ) AS x(change) WHERE pg_visible_in_snapshot(x.change::text::xid8, now.snapshot)
    EXCEPT SELECT unnest(:own::bigint[])) AS changes) AS ended;

-- name: anything_posted
SELECT EXISTS (SELECT 1 FROM perdure.posted);

-- name: home
SELECT perdure.home();
