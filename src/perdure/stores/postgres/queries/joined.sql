-- What is done in a transaction of a caller's own. Nothing here locks or changes a row that stands, and nothing waits
-- but the insert of an id that another open transaction has inserted. `home` tells which store this is.

-- name: take_rows
-- As for any other writer; and a name for the row that may be inserted.
SELECT t.*, perdure.home() AS home, nextval(:sequence::text::regclass) AS new_row
FROM perdure.take_rows(:ids::text[], :known::bigint[], :seen_ids::text[], :seen_known::bigint[], :waiting) AS t;

-- name: write_rows
-- The hint goes out with the caller's commit, or never.
SELECT w.*, pg_notify(:channel, :hint)
FROM perdure.write_rows(
    :new_rows, :new_ids, :new_lanes, :new_priorities, :new_statuses, :new_ready, :new_deadlines, :new_settles,
    :new_parents, :new_states, :new_bodies,
    :saved_rows, :saved_statuses, :saved_ready, :saved_deadlines, :saved_settles, :saved_states,
    :event_codec, :event_rows, :event_sequences, :event_types, :event_times, :event_replay_keys, :event_operations,
    :event_hashes, :event_checksums, :event_payloads,
    :lease_rows, :lease_stood_fences, :lease_stood_expiries, :lease_owners, :lease_incarnations, :lease_tokens,
    :lease_fences, :lease_claims, :lease_claimed, :lease_expires, :lease_boots, :lease_boot_expires, :lease_released,
    :lease_lanes, :lease_priorities, :lease_settles,
    :dropped_rows, :dropped_fences, :dropped_expiries, :progress_rows, :progress_bodies, :partly) AS w;

-- name: standing
-- What stands for a signal: the record, and the event that carries the signal's key. One row, whatever exists.
SELECT perdure.home() AS home, perdure.now_ms() AS now_ms, r.body, p.state, e.sequence, e.type, e.payload, e.at,
       e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM (SELECT :id::text AS id) AS asked
LEFT JOIN perdure.processes AS p ON p.id = asked.id
LEFT JOIN perdure.registrations AS r ON r.row = p.row
LEFT JOIN perdure.events AS e ON e.row = p.row AND e.replay_key = :replay_key::text;

-- name: post
WITH added AS (INSERT INTO perdure.posted (process_id, codec, body) VALUES (:id, :codec, :body) RETURNING number)
SELECT added.number, pg_notify(:channel, :hint) FROM added;
