-- What a diagnosis reads, each in a transaction that can't write and may take a few seconds. Nothing here needs more
-- than a reader's rights; what the server hides from such a role comes as null.

-- name: server
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS version_num,
       pg_is_in_recovery() AS in_recovery, current_user::text AS role,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
       to_regnamespace(:quoted) IS NOT NULL AS has_schema;

-- name: now
SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- name: settings
-- As they are for this role in this database.
SELECT name, current_setting(name) AS value FROM pg_catalog.pg_settings WHERE name = ANY (:names::text[]);

-- name: connections
-- How many there are, how many of them are hosts', and the narrowest bound: the server's, the database's, the role's.
SELECT count(*) AS used, count(*) FILTER (WHERE a.application_name = 'perdure') AS of_hosts,
       (SELECT min(bound.most) FROM (VALUES
           (current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer),
           ((SELECT nullif(d.datconnlimit, -1) FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())),
           ((SELECT nullif(r.rolconnlimit, -1) FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user))
       ) AS bound(most)) AS most
FROM pg_catalog.pg_stat_activity AS a WHERE a.datid IS NOT NULL AND a.pid <> pg_backend_pid();

-- name: rights
-- Of these rights on things in the schema, the ones that this role lacks. What does not exist is not answered.
SELECT wanted.kind, wanted.object, wanted.privilege
FROM unnest(:kinds::text[], :objects::text[], :privileges::text[]) AS wanted(kind, object, privilege)
JOIN pg_catalog.pg_namespace AS n ON n.oid = to_regnamespace(:quoted)
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.object
WHERE CASE wanted.kind
          WHEN 'schema' THEN NOT has_schema_privilege(n.oid, wanted.privilege)
          WHEN 'table' THEN NOT has_table_privilege(c.oid, wanted.privilege)
          WHEN 'sequence' THEN NOT has_sequence_privilege(c.oid, wanted.privilege)
          ELSE EXISTS (SELECT 1 FROM pg_catalog.pg_proc AS p
                       WHERE p.pronamespace = n.oid AND NOT has_function_privilege(p.oid, wanted.privilege))
      END;

-- name: transactions
-- The oldest open ones of this database, and whatever holds its horizon; `age_ms` null: this role may not see it.
SELECT a.pid, coalesce(a.usename, 'replication')::text AS role, coalesce(a.application_name, '') AS application,
       coalesce(a.state, '') AS state,
       (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::bigint AS age_ms,
       (extract(epoch FROM clock_timestamp() - a.query_start) * 1000)::bigint AS statement_ms,
       coalesce(greatest(age(a.backend_xmin), age(a.backend_xid)), 0) AS horizon
FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid <> pg_backend_pid() AND (a.xact_start IS NOT NULL OR a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
  AND (a.datname = current_database() AND a.usesysid IS NOT NULL OR a.datid IS NULL AND a.backend_xmin IS NOT NULL)
ORDER BY a.xact_start NULLS LAST, horizon DESC LIMIT 20;

-- name: prepared
SELECT p.gid, p.owner::text AS role, (extract(epoch FROM clock_timestamp() - p.prepared) * 1000)::bigint AS age_ms,
       age(p.transaction) AS horizon
FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = current_database() ORDER BY p.prepared LIMIT 20;

-- name: slots
SELECT s.slot_name::text AS name, s.active, coalesce(greatest(age(s.xmin), age(s.catalog_xmin)), 0) AS horizon,
       coalesce(s.wal_status, '') AS wal_status,
       CASE WHEN NOT pg_is_in_recovery() AND s.restart_lsn IS NOT NULL
            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint ELSE 0 END AS kept_bytes
FROM pg_catalog.pg_replication_slots AS s ORDER BY kept_bytes DESC LIMIT 20;

-- name: locks
-- Who waits for a lock in this database, for what, and for whom.
SELECT w.pid, w.what, w.mode, w.waited_ms, pg_blocking_pids(w.pid) AS blockers
FROM (
    SELECT l.pid, coalesce(c.relname::text, l.locktype) AS what, l.mode,
           coalesce((extract(epoch FROM clock_timestamp() - l.waitstart) * 1000)::bigint, 0) AS waited_ms
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid AND a.datname = current_database()
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE NOT l.granted ORDER BY l.waitstart LIMIT 20
) AS w;

-- name: tables
-- `place`: the name as SQL takes it anywhere. `due_dead`: from how many dead rows on autovacuum comes. `width`: the bytes of a row by the last ANALYZE, null before.
SELECT t.name, t.place, t.live, t.dead, t.updated, t.updated_hot, t.vacuumed_ms, t.autovacuum, t.fillfactor, t.frozen_age,
       t.heap_bytes, t.total_bytes, t.width,
       (t.base + t.scale * greatest(t.tuples, t.live))::bigint AS due_dead
FROM (
    SELECT c.relname::text AS name, format('%I.%I', s.schemaname, c.relname) AS place, s.n_live_tup AS live, s.n_dead_tup AS dead, s.n_tup_upd AS updated,
           s.n_tup_hot_upd AS updated_hot, greatest(c.reltuples, 0) AS tuples,
           (extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum)) * 1000)::bigint AS vacuumed_ms,
           coalesce((o.options ->> 'autovacuum_enabled')::boolean, true) AS autovacuum,
           coalesce((o.options ->> 'fillfactor')::integer, 100) AS fillfactor,
           coalesce((o.options ->> 'autovacuum_vacuum_threshold')::float8,
                    current_setting('autovacuum_vacuum_threshold')::float8) AS base,
           coalesce((o.options ->> 'autovacuum_vacuum_scale_factor')::float8,
                    current_setting('autovacuum_vacuum_scale_factor')::float8) AS scale,
           age(c.relfrozenxid) AS frozen_age,
           pg_relation_size(c.oid) AS heap_bytes, pg_total_relation_size(c.oid) AS total_bytes,
           (SELECT sum(w.avg_width * (1 - w.null_frac))::float8 FROM pg_catalog.pg_stats AS w
            WHERE w.schemaname = s.schemaname AND w.tablename = c.relname) AS width
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_stat_user_tables AS s ON s.relid = c.oid
    CROSS JOIN LATERAL (SELECT jsonb_object_agg(option_name, option_value) AS options
                        FROM pg_catalog.pg_options_to_table(c.reloptions)) AS o
    WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relkind = 'r'
) AS t ORDER BY t.total_bytes DESC LIMIT 1000;

-- name: indexes
-- `used`: how often it was read since the statistics begin.
SELECT c.relname::text AS name, format('%I.%I', n.nspname, c.relname) AS place, t.relname::text AS table_name, i.indisvalid AND i.indisready AS valid,
       pg_relation_size(c.oid) AS bytes, coalesce(s.idx_scan, 0) AS used, i.indpred IS NOT NULL AS partial,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) AS columns
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_user_indexes AS s ON s.indexrelid = i.indexrelid
WHERE c.relnamespace = to_regnamespace(:quoted) AND t.relkind IN ('r', 'p') ORDER BY c.relname LIMIT 1000;

-- name: ages
SELECT age(d.datfrozenxid) AS transactions, mxid_age(d.datminmxid) AS multixacts,
       current_setting('autovacuum_freeze_max_age')::bigint AS transactions_due,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixacts_due
FROM pg_catalog.pg_database AS d WHERE d.datname = current_database();

-- name: owners
-- Every enrolled owner with the leases it holds, and every holder that is not enrolled.
SELECT coalesce(o.incarnation, l.incarnation) AS incarnation, o.identity, coalesce(l.owner, '') AS holder,
       coalesce(l.held, 0) AS held
FROM perdure.owners AS o
FULL JOIN (SELECT l.incarnation, min(l.owner) AS owner, count(*) AS held FROM perdure.leases AS l
           WHERE NOT l.released GROUP BY l.incarnation) AS l ON l.incarnation = o.incarnation
ORDER BY 1 LIMIT 1000;

-- name: lapsed
-- Runs whose lease was given back (that alone leaves their status as it was) or has lapsed, or whose owner is proved
-- dead, with the lease. A walk through the standing leases.
SELECT p.id, r.body, p.state, perdure.lease_text(p.id, l) AS lease
FROM perdure.leases AS l
JOIN perdure.processes AS p ON p.row = l.row JOIN perdure.registrations AS r ON r.row = p.row
WHERE l.released OR l.boot_expires_at <= :now::bigint OR l.incarnation = ANY (:dead::text[])
ORDER BY l.row LIMIT 1000;

-- name: rows_about
-- How many processes there are, as the last ANALYZE or VACUUM has estimated it.
SELECT greatest(sum(c.reltuples), 0)::bigint FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relname = 'processes';

-- name: statuses
-- Reads the table through.
SELECT status, count(*) AS count FROM perdure.processes GROUP BY status ORDER BY status;

-- name: departed
-- Reads the table through.
SELECT p.id, r.body, p.state, NULL::text AS lease
FROM perdure.processes AS p JOIN perdure.registrations AS r ON r.row = p.row
WHERE p.status = 'caller_departed' ORDER BY p.id LIMIT 1000;

-- name: posted
-- What was posted and not delivered, up to ten thousand.
SELECT count(*) AS count, (array_agg(p.process_id))[1:5] AS first
FROM (SELECT process_id FROM perdure.posted ORDER BY number LIMIT 10000) AS p;
