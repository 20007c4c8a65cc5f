-- What a transaction of a caller's own asks of processes that it can't write to itself: it only adds here, and nobody
-- waits for it. Whoever finds it once it is committed takes it away and does it, in one transaction.

INSERT INTO perdure.versions (version) VALUES (2);

-- `number` is the order within one transaction. `body` is the command in the format `codec`.
CREATE TABLE perdure.posted (
    number     bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    process_id text     COLLATE "C" NOT NULL,
    codec      smallint NOT NULL,
    body       text     NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE INDEX posted_process ON perdure.posted (process_id, number);

-- Which store in which database this is: how a caller's connection is told from one that leads elsewhere.
CREATE FUNCTION perdure.home() RETURNS text LANGUAGE sql STABLE
AS $$ SELECT s.epoch::text || '/' || d.oid::text
      FROM perdure.store AS s, pg_catalog.pg_database AS d WHERE d.datname = current_database() $$;

-- Takes away up to `wanted` of what was posted, in order, but for what was posted to the processes in `but`. What somebody
-- else's transaction is taking is passed over, and so is what was posted to the same process after it: that one goes first.
CREATE FUNCTION perdure.take_posted(
    wanted integer, but text[], OUT ids text[], OUT codecs smallint[], OUT bodies text[]
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    found     bigint[];
    found_ids text[];
    last      bigint;
BEGIN
    SELECT coalesce(array_agg(f.number), '{}'), coalesce(array_agg(f.process_id), '{}'), max(f.number)
    INTO found, found_ids, last
    FROM (SELECT p.number, p.process_id FROM perdure.posted AS p WHERE p.process_id <> ALL (but)
          ORDER BY p.number LIMIT wanted FOR UPDATE SKIP LOCKED) AS f;
    WITH others AS (
        SELECT p.process_id, min(p.number) AS number FROM perdure.posted AS p
        WHERE p.process_id = ANY (found_ids) AND p.number < last AND p.number <> ALL (found)
        GROUP BY p.process_id
    ), taken AS (
        DELETE FROM perdure.posted AS p WHERE p.number = ANY (found)
        AND NOT EXISTS (SELECT 1 FROM others AS o WHERE o.process_id = p.process_id AND o.number < p.number)
        RETURNING p.number, p.process_id, p.codec, p.body
    )
    SELECT array_agg(t.process_id ORDER BY t.number), array_agg(t.codec ORDER BY t.number),
           array_agg(t.body ORDER BY t.number)
    INTO ids, codecs, bodies FROM taken AS t;
END $$;
