-- The first schema. Payloads are JSON text; times are milliseconds. `perdure.` stands for the schema that was chosen.
-- Every unique key of a big table begins with the row, so that each can be partitioned by it later. Text is compared
-- byte by byte (COLLATE "C"), as on every store. The body of a function is text, not parsed SQL, so that it can be compared
-- with what it must be on every version of the server. A function keeps its name and meaning for ever: programs of the version
-- before call it while this one is there already. All that the functions look up they look up by an index, whatever the
-- statistics of a table that was empty a minute ago say: so their plans are made once, and none reads a table through.

-- The steps that have been made.
CREATE TABLE perdure.versions (
    version integer     PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO perdure.versions (version) VALUES (1);

-- One row per process: what it is found by, and the folded state. Written at every transition, so it stays narrow, with
-- room on each page for the next version of its rows.
CREATE TABLE perdure.processes (
    row         bigint   PRIMARY KEY,
    id          text     COLLATE "C" NOT NULL,
    lane        text     COLLATE "C" NOT NULL,
    priority    smallint NOT NULL,
    status      text     COLLATE "C" NOT NULL,
    ready_at    bigint,
    deadline_at bigint,
    settle_at   bigint,
    parent      text     COLLATE "C",
    state       text     NOT NULL,
    CONSTRAINT processes_id UNIQUE (id)
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);

-- The order in which rows are claimed, of those that can be.
CREATE INDEX processes_ready    ON perdure.processes (lane, priority, ready_at, id) WHERE ready_at IS NOT NULL;
CREATE INDEX processes_deadline ON perdure.processes (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX processes_settle   ON perdure.processes (settle_at) WHERE settle_at IS NOT NULL;
CREATE INDEX processes_parent   ON perdure.processes (parent) WHERE parent IS NOT NULL;

-- Rows get their integer names in blocks, from the program that inserts them.
CREATE SEQUENCE perdure.process_rows AS bigint INCREMENT BY 1024;

-- What was declared, written once; apart from the state so that a transition never rewrites an input. `change` is the
-- transaction that wrote it: the change position, from which others find what they have not seen.
CREATE TABLE perdure.registrations (
    row    bigint PRIMARY KEY,
    change bigint NOT NULL,
    body   text   NOT NULL
);

CREATE INDEX registrations_change ON perdure.registrations (change);

-- The logs. A change of a record is always an event, so the change position of a row is that of its last event.
CREATE TABLE perdure.events (
    row            bigint   NOT NULL,
    sequence       integer  NOT NULL,
    codec          smallint NOT NULL,
    at             bigint   NOT NULL,
    checksum       bigint   NOT NULL,
    change         bigint   NOT NULL,
    type           text     COLLATE "C" NOT NULL,
    replay_key     text     COLLATE "C",
    operation_id   text     COLLATE "C",
    operation_hash text     COLLATE "C",
    payload        text     NOT NULL,
    PRIMARY KEY (row, sequence)
);

CREATE UNIQUE INDEX events_replay_key ON perdure.events (row, replay_key) WHERE replay_key IS NOT NULL;
CREATE INDEX events_operation ON perdure.events (row, operation_id) WHERE operation_id IS NOT NULL;
CREATE INDEX events_change ON perdure.events (change);

-- The standing leases. `lane` and `priority` are set while a lapse makes the row claimable, `settle_at` while a lapse
-- makes it due for settling. Renewing rewrites no payload.
CREATE TABLE perdure.leases (
    row             bigint   PRIMARY KEY,
    owner           text     NOT NULL,
    incarnation     text     COLLATE "C" NOT NULL,
    token           text     COLLATE "C" NOT NULL,
    fence           bigint   NOT NULL,
    claim_id        text     COLLATE "C" NOT NULL,
    claimed_at      bigint   NOT NULL,
    expires_at      bigint   NOT NULL,
    boot_id         text     COLLATE "C" NOT NULL,
    boot_expires_at bigint   NOT NULL,
    released        boolean  NOT NULL,
    lane            text     COLLATE "C",
    priority        smallint NOT NULL,
    settle_at       bigint
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE INDEX leases_lapse  ON perdure.leases (lane, priority, boot_expires_at) WHERE lane IS NOT NULL;
CREATE INDEX leases_claim  ON perdure.leases (incarnation, claim_id);
CREATE INDEX leases_settle ON perdure.leases (settle_at) WHERE settle_at IS NOT NULL;

-- How far a process says it has come: the last value only, beside the log and apart from the state, as it is written
-- once a second while the process runs and changes nothing that a process is found by.
CREATE TABLE perdure.progress (
    row  bigint PRIMARY KEY,
    body text   NOT NULL
) WITH (fillfactor = 60);

-- Who may hold leases, with the evidence that lets others on the same machine prove its death.
CREATE TABLE perdure.owners (
    incarnation text COLLATE "C" PRIMARY KEY,
    identity    text NOT NULL
);

-- The epoch that a restore changes: positions of two epochs can't be compared.
CREATE TABLE perdure.store (
    one   smallint PRIMARY KEY CHECK (one = 1),
    epoch uuid     NOT NULL
);

INSERT INTO perdure.store (one, epoch) VALUES (1, gen_random_uuid());

CREATE FUNCTION perdure.now_ms() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- A lease as JSON, or null where there is none.
CREATE FUNCTION perdure.lease_text(process_id text, l perdure.leases) RETURNS text LANGUAGE sql STABLE
AS $$ SELECT CASE WHEN l.row IS NOT NULL THEN json_build_object(
    'process_id', process_id, 'owner', json_build_object('name', l.owner, 'incarnation', l.incarnation),
    'token', l.token, 'fence', l.fence, 'claim_id', l.claim_id, 'claimed_at_ms', l.claimed_at,
    'expires_at_ms', l.expires_at, 'boot_id', l.boot_id, 'boot_expires_ms', l.boot_expires_at, 'released', l.released
)::text END $$;

-- Locks the named rows in order of id and answers them as they stand then. Each statement of a volatile function sees
-- what was committed before it, so what is read after the lock is never older than the locked row.
-- Unless it is `waiting`, a row that somebody else's transaction holds is not waited for; it is named in `held`.
-- `seen_ids` are answered too and not locked: of these only what never changes is decided on.
-- `known` and `seen_known` stand beside the ids: the row whose registration the caller has already, or null.
CREATE FUNCTION perdure.take_rows(
    wanted_ids text[], known bigint[], seen_ids text[], seen_known bigint[], waiting boolean,
    OUT now_ms bigint, OUT held text[], OUT rows bigint[], OUT ids text[], OUT states text[], OUT bodies text[],
    OUT leases text[]
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    locked  bigint[] := '{}';
    lacking boolean[] := '{}';
BEGIN
    IF cardinality(wanted_ids) > 0 THEN
        IF waiting THEN
            SELECT coalesce(array_agg(w.row), '{}'), coalesce(array_agg(w.lacking), '{}') INTO locked, lacking
            FROM (SELECT p.row, w.row IS DISTINCT FROM p.row AS lacking
                  FROM unnest(wanted_ids, known) AS w(id, row) JOIN perdure.processes AS p ON p.id = w.id
                  ORDER BY p.id FOR NO KEY UPDATE OF p) AS w;
        ELSE
            SELECT coalesce(array_agg(w.row), '{}'), coalesce(array_agg(w.lacking), '{}') INTO locked, lacking
            FROM (SELECT p.row, w.row IS DISTINCT FROM p.row AS lacking
                  FROM unnest(wanted_ids, known) AS w(id, row) JOIN perdure.processes AS p ON p.id = w.id
                  ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED) AS w;
        END IF;
        IF cardinality(locked) < cardinality(wanted_ids) THEN
            held := ARRAY(SELECT p.id FROM perdure.processes AS p WHERE p.id = ANY (wanted_ids)
                          EXCEPT SELECT p.id FROM perdure.processes AS p WHERE p.row = ANY (locked));
        END IF;
    END IF;
    IF cardinality(locked) > 0 OR cardinality(seen_ids) > 0 THEN
        SELECT array_agg(p.row), array_agg(p.id), array_agg(p.state), array_agg(r.body),
               array_agg(perdure.lease_text(p.id, l))
        INTO rows, ids, states, bodies, leases
        FROM (SELECT w.row, w.lacking FROM unnest(locked, lacking) AS w(row, lacking)
              UNION ALL
              SELECT p.row, w.row IS DISTINCT FROM p.row
              FROM unnest(seen_ids, seen_known) AS w(id, row) JOIN perdure.processes AS p ON p.id = w.id) AS taken
        JOIN perdure.processes AS p ON p.row = taken.row
        LEFT JOIN perdure.registrations AS r ON r.row = p.row AND taken.lacking
        LEFT JOIN perdure.leases AS l ON l.row = p.row;
    END IF;
    now_ms := perdure.now_ms();
END $$;

-- The like for a renewal, which locks the leases and not their rows: whoever decides about a row writes its lease only
-- if it is still the one that was read, and what is decided on here is read after the lock.
CREATE FUNCTION perdure.take_leases(
    wanted_ids text[], known bigint[], waiting boolean,
    OUT now_ms bigint, OUT held text[], OUT rows bigint[], OUT ids text[], OUT states text[], OUT bodies text[],
    OUT leases text[]
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    locked  bigint[];
    lacking boolean[];
BEGIN
    IF waiting THEN
        SELECT coalesce(array_agg(w.row), '{}'), coalesce(array_agg(w.lacking), '{}') INTO locked, lacking
        FROM (SELECT p.row, w.row IS DISTINCT FROM p.row AS lacking
              FROM unnest(wanted_ids, known) AS w(id, row)
              JOIN perdure.processes AS p ON p.id = w.id JOIN perdure.leases AS l ON l.row = p.row
              ORDER BY p.id FOR NO KEY UPDATE OF l) AS w;
    ELSE
        SELECT coalesce(array_agg(w.row), '{}'), coalesce(array_agg(w.lacking), '{}') INTO locked, lacking
        FROM (SELECT p.row, w.row IS DISTINCT FROM p.row AS lacking
              FROM unnest(wanted_ids, known) AS w(id, row)
              JOIN perdure.processes AS p ON p.id = w.id JOIN perdure.leases AS l ON l.row = p.row
              ORDER BY p.id FOR NO KEY UPDATE OF l SKIP LOCKED) AS w;
    END IF;
    IF cardinality(locked) < cardinality(wanted_ids) THEN
        held := ARRAY(SELECT p.id FROM perdure.processes AS p JOIN perdure.leases AS l ON l.row = p.row
                      WHERE p.id = ANY (wanted_ids)
                      EXCEPT SELECT p.id FROM perdure.processes AS p WHERE p.row = ANY (locked));
    END IF;
    SELECT array_agg(p.row), array_agg(p.id), array_agg(p.state), array_agg(r.body), array_agg(perdure.lease_text(p.id, l))
    INTO rows, ids, states, bodies, leases
    FROM unnest(locked, lacking) AS taken(row, lacking)
    JOIN perdure.processes AS p ON p.row = taken.row
    JOIN perdure.leases AS l ON l.row = p.row
    LEFT JOIN perdure.registrations AS r ON r.row = p.row AND taken.lacking;
    now_ms := perdure.now_ms();
END $$;

-- Proposes rows to claims that look at the same lanes, locks them, and answers them as they stand then. What somebody
-- else's transaction holds is passed over: claims never wait for each other, and two transactions never propose one row.
-- `again_claims` and `again_ids`: what these very claims have leased before; if all have, nothing is proposed.
-- Ready rows are found page by page in the order of the claim, priority by priority and each a range of processes_ready,
-- so that what isn't ready is never visited, nothing large is sorted, and no more rows are locked than are wanted.
-- at_ms and at_boot_ms null: the clock of this server decides.
CREATE FUNCTION perdure.take_claims(
    claimers text[], claims text[], lanes text[], wanted integer, at_ms bigint, at_boot_ms bigint, dead text[],
    OUT now_ms bigint, OUT again_claims text[], OUT again_ids text[], OUT priorities smallint[], OUT dues bigint[],
    OUT rows bigint[], OUT ids text[], OUT states text[], OUT bodies text[], OUT leases text[]
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    boot_ms       bigint;
    page_priority smallint := -1;
    page_due      bigint := 0;
    page_id       text := '';
    page_ids      text[];
    asked         integer;
    ready         bigint[] := '{}';
    lapsed        bigint[] := '{}';
BEGIN
    now_ms := coalesce(at_ms, perdure.now_ms());
    boot_ms := coalesce(at_boot_ms, now_ms);
    SELECT coalesce(array_agg(l.claim_id), '{}'), coalesce(array_agg(p.id), '{}') INTO again_claims, again_ids
    FROM unnest(claimers, claims) AS asked(incarnation, claim_id)
    JOIN perdure.leases AS l ON l.incarnation = asked.incarnation AND l.claim_id = asked.claim_id
    JOIN perdure.processes AS p ON p.row = l.row;
    IF cardinality(claims) > 0 AND NOT EXISTS (SELECT unnest(claims) EXCEPT SELECT unnest(again_claims)) THEN
        RETURN;
    END IF;
    LOOP
        asked := wanted - cardinality(ready);
        SELECT array_agg(head.id), (array_agg(head.priority))[count(*)], (array_agg(head.due))[count(*)],
               (array_agg(head.id))[count(*)]
        INTO page_ids, page_priority, page_due, page_id
        FROM (
            SELECT range.priority, c.due, c.id
            FROM (SELECT l.lane, p.priority::smallint AS priority FROM unnest(lanes) AS l(lane)
                  CROSS JOIN generate_series(greatest(page_priority, 0), 9) AS p(priority)) AS range
            CROSS JOIN LATERAL (
                SELECT p.ready_at AS due, p.id FROM perdure.processes AS p
                WHERE p.lane = range.lane AND p.priority = range.priority AND p.ready_at <= now_ms
                  AND (range.priority > page_priority OR (p.ready_at, p.id) > (page_due, page_id))
                ORDER BY p.ready_at, p.id LIMIT asked
            ) AS c
            ORDER BY 1, 2, 3 LIMIT asked
        ) AS head;
        EXIT WHEN page_ids IS NULL;
        ready := ready || ARRAY(
            SELECT p.row FROM perdure.processes AS p WHERE p.id = ANY (page_ids) AND p.ready_at <= now_ms
            ORDER BY p.priority, p.ready_at, p.id FOR NO KEY UPDATE SKIP LOCKED);
        EXIT WHEN cardinality(page_ids) < asked OR cardinality(ready) >= wanted;
    END LOOP;
    -- What a lost owner had was claimed before what still waits, and so goes before it. Its lease is read again below;
    -- it is locked too, as the one who claims the row will write it.
    lapsed := ARRAY(
        SELECT p.row
        FROM (
            SELECT c.row, range.priority
            FROM (SELECT l.lane, p.priority::smallint AS priority FROM unnest(lanes) AS l(lane)
                  CROSS JOIN generate_series(0, 9) AS p(priority)) AS range
            CROSS JOIN LATERAL (
                SELECT l.row FROM perdure.leases AS l
                WHERE l.lane = range.lane AND l.priority = range.priority AND l.boot_expires_at <= boot_ms
                ORDER BY l.boot_expires_at LIMIT wanted
            ) AS c
            UNION
            SELECT v.row, v.priority FROM (
                SELECT l.row, l.priority FROM perdure.leases AS l
                WHERE l.incarnation = ANY (dead) AND l.lane = ANY (lanes) ORDER BY l.priority LIMIT wanted) AS v
            ORDER BY 2, 1 LIMIT wanted
        ) AS head
        JOIN perdure.processes AS p ON p.row = head.row
        JOIN perdure.leases AS l ON l.row = head.row
        ORDER BY p.id FOR NO KEY UPDATE OF p, l SKIP LOCKED);
    SELECT array_agg(p.priority), array_agg(CASE WHEN p.row = ANY (lapsed) THEN 0 ELSE p.ready_at END),
           array_agg(p.row), array_agg(p.id), array_agg(p.state), array_agg(r.body),
           array_agg(perdure.lease_text(p.id, l))
    INTO priorities, dues, rows, ids, states, bodies, leases
    FROM unnest(lapsed || ready) AS taken(row)
    JOIN perdure.processes AS p ON p.row = taken.row
    JOIN perdure.registrations AS r ON r.row = p.row
    LEFT JOIN perdure.leases AS l ON l.row = p.row;
END $$;

-- Writes what was decided, each table in one statement, and answers the transaction's change position.
-- `met`: ids that somebody else has inserted meanwhile. Unless the other rows are to be written without these (`partly`),
-- nothing may be committed then. `overtaken`: how many leases are not the ones that were read, each named by its fence
-- and expiry (null: there was none); with any, nothing may be committed.
CREATE FUNCTION perdure.write_rows(
    new_rows bigint[], new_ids text[], new_lanes text[], new_priorities smallint[], new_statuses text[],
    new_ready bigint[], new_deadlines bigint[], new_settles bigint[], new_parents text[], new_states text[],
    new_bodies text[],
    saved_rows bigint[], saved_statuses text[], saved_ready bigint[], saved_deadlines bigint[], saved_settles bigint[],
    saved_states text[],
    event_codec smallint, event_rows bigint[], event_sequences integer[], event_types text[], event_times bigint[],
    event_replay_keys text[], event_operations text[], event_hashes text[], event_checksums bigint[],
    event_payloads text[],
    lease_rows bigint[], lease_stood_fences bigint[], lease_stood_expiries bigint[], lease_owners text[],
    lease_incarnations text[], lease_tokens text[], lease_fences bigint[], lease_claims text[],
    lease_claimed bigint[], lease_expires bigint[], lease_boots text[], lease_boot_expires bigint[],
    lease_released boolean[], lease_lanes text[], lease_priorities smallint[], lease_settles bigint[],
    dropped_rows bigint[], dropped_fences bigint[], dropped_expiries bigint[],
    progress_rows bigint[], progress_bodies text[], partly boolean,
    OUT change_position bigint, OUT met text[], OUT overtaken integer
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    inserted text[];
    unmade   bigint[] := '{}';
    written  integer;
BEGIN
    change_position := pg_current_xact_id()::text::bigint;
    overtaken := 0;
    IF cardinality(new_rows) > 0 THEN
        WITH made AS (
            INSERT INTO perdure.processes (row, id, lane, priority, status, ready_at, deadline_at, settle_at, parent, state)
            SELECT * FROM unnest(new_rows, new_ids, new_lanes, new_priorities, new_statuses, new_ready, new_deadlines,
                                 new_settles, new_parents, new_states)
            ON CONFLICT ON CONSTRAINT processes_id DO NOTHING RETURNING id)
        SELECT array_agg(made.id) INTO inserted FROM made;
        IF coalesce(cardinality(inserted), 0) < cardinality(new_ids) THEN
            met := ARRAY(SELECT unnest(new_ids) EXCEPT SELECT unnest(inserted));
            IF NOT partly THEN
                RETURN;
            END IF;
            unmade := ARRAY(SELECT made.row FROM unnest(new_rows, new_ids) AS made(row, id)
                            JOIN unnest(met) AS other(id) USING (id));
        END IF;
        INSERT INTO perdure.registrations (row, change, body)
        SELECT made.row, change_position, made.body FROM unnest(new_rows, new_bodies) AS made(row, body)
        WHERE made.row <> ALL (unmade);
    END IF;
    IF cardinality(saved_rows) > 0 THEN
        UPDATE perdure.processes AS p
        SET status = w.status, ready_at = w.ready_at, deadline_at = w.deadline_at, settle_at = w.settle_at, state = w.state
        FROM unnest(saved_rows, saved_statuses, saved_ready, saved_deadlines, saved_settles, saved_states)
            AS w(row, status, ready_at, deadline_at, settle_at, state)
        WHERE p.row = w.row;
    END IF;
    IF cardinality(event_rows) > 0 THEN
        INSERT INTO perdure.events (row, sequence, type, at, replay_key, operation_id, operation_hash, checksum, payload,
                                    codec, change)
        SELECT e.*, event_codec, change_position
        FROM unnest(event_rows, event_sequences, event_types, event_times, event_replay_keys, event_operations,
                    event_hashes, event_checksums, event_payloads)
            AS e(row, sequence, type, at, replay_key, operation_id, operation_hash, checksum, payload)
        WHERE e.row <> ALL (unmade);
    END IF;
    IF cardinality(dropped_rows) > 0 THEN
        DELETE FROM perdure.leases AS l
        USING unnest(dropped_rows, dropped_fences, dropped_expiries) AS stood(row, fence, expiry)
        WHERE l.row = stood.row AND l.fence = stood.fence AND l.boot_expires_at = stood.expiry;
        GET DIAGNOSTICS written = ROW_COUNT;
        overtaken := overtaken + cardinality(dropped_rows) - written;
    END IF;
    IF cardinality(lease_rows) > 0 THEN
        UPDATE perdure.leases AS l
        SET owner = w.owner, incarnation = w.incarnation, token = w.token, fence = w.fence, claim_id = w.claim_id,
            claimed_at = w.claimed_at, expires_at = w.expires_at, boot_id = w.boot_id,
            boot_expires_at = w.boot_expires_at, released = w.released, lane = w.lane, priority = w.priority,
            settle_at = w.settle_at
        FROM unnest(lease_rows, lease_stood_fences, lease_stood_expiries, lease_owners, lease_incarnations, lease_tokens,
                    lease_fences, lease_claims, lease_claimed, lease_expires, lease_boots, lease_boot_expires,
                    lease_released, lease_lanes, lease_priorities, lease_settles)
            AS w(row, stood_fence, stood_expiry, owner, incarnation, token, fence, claim_id, claimed_at, expires_at,
                 boot_id, boot_expires_at, released, lane, priority, settle_at)
        WHERE l.row = w.row AND l.fence = w.stood_fence AND l.boot_expires_at = w.stood_expiry;
        GET DIAGNOSTICS written = ROW_COUNT;
        overtaken := overtaken + cardinality(lease_rows) - written
                     - (SELECT count(*) FROM unnest(lease_rows) AS w(row) WHERE w.row = ANY (unmade));
        INSERT INTO perdure.leases (row, owner, incarnation, token, fence, claim_id, claimed_at, expires_at, boot_id,
                                    boot_expires_at, released, lane, priority, settle_at)
        SELECT w.row, w.owner, w.incarnation, w.token, w.fence, w.claim_id, w.claimed_at, w.expires_at, w.boot_id,
               w.boot_expires_at, w.released, w.lane, w.priority, w.settle_at
        FROM unnest(lease_rows, lease_stood_fences, lease_owners, lease_incarnations, lease_tokens, lease_fences,
                    lease_claims, lease_claimed, lease_expires, lease_boots, lease_boot_expires, lease_released,
                    lease_lanes, lease_priorities, lease_settles)
            AS w(row, stood_fence, owner, incarnation, token, fence, claim_id, claimed_at, expires_at, boot_id,
                 boot_expires_at, released, lane, priority, settle_at)
        WHERE w.stood_fence IS NULL AND w.row <> ALL (unmade)
        ON CONFLICT (row) DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;
        overtaken := overtaken - written;
    END IF;
    IF cardinality(progress_rows) > 0 THEN
        INSERT INTO perdure.progress AS g (row, body)
        SELECT w.row, w.body FROM unnest(progress_rows, progress_bodies) AS w(row, body)
        WHERE w.row <> ALL (unmade)
        ON CONFLICT (row) DO UPDATE SET body = excluded.body;
    END IF;
END $$;

-- The earliest of: a row of these lanes becoming ready, a lapse of theirs, a deadline, an unsettled end; all after now.
-- Lapses are in boot time, and are answered as wall time.
CREATE FUNCTION perdure.next_due(lanes text[], at_ms bigint, at_boot_ms bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    RETURN (SELECT min(soonest.due) FROM (
        SELECT (SELECT p.ready_at FROM perdure.processes AS p
                WHERE p.lane = range.lane AND p.priority = range.priority AND p.ready_at > at_ms
                ORDER BY p.ready_at LIMIT 1) AS due
        FROM (SELECT l.lane, p.priority::smallint AS priority
              FROM unnest(lanes) AS l(lane) CROSS JOIN generate_series(0, 9) AS p(priority)) AS range
        UNION ALL
        SELECT (SELECT l.boot_expires_at - at_boot_ms + at_ms FROM perdure.leases AS l
                WHERE l.lane = range.lane AND l.priority = range.priority AND l.boot_expires_at > at_boot_ms
                ORDER BY l.boot_expires_at LIMIT 1)
        FROM (SELECT l.lane, p.priority::smallint AS priority
              FROM unnest(lanes) AS l(lane) CROSS JOIN generate_series(0, 9) AS p(priority)) AS range
        UNION ALL
        SELECT (SELECT p.deadline_at FROM perdure.processes AS p WHERE p.deadline_at > at_ms ORDER BY p.deadline_at LIMIT 1)
        UNION ALL
        SELECT (SELECT p.settle_at FROM perdure.processes AS p WHERE p.settle_at > at_ms ORDER BY p.settle_at LIMIT 1)
        UNION ALL
        SELECT (SELECT min(greatest(l.settle_at, l.boot_expires_at - at_boot_ms + at_ms)) FROM perdure.leases AS l
                WHERE l.settle_at IS NOT NULL AND greatest(l.settle_at, l.boot_expires_at - at_boot_ms + at_ms) > at_ms)
    ) AS soonest);
END $$;
