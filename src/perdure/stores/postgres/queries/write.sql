-- What a transaction that writes does. The functions are in the migrations, where their locks are told.

-- name: take_rows
SELECT * FROM perdure.take_rows(:ids, :known, :seen_ids, :seen_known, :waiting);

-- name: take_claims
SELECT * FROM perdure.take_claims(:incarnations, :claim_ids, :lanes, :wanted, :now, :boot_now, :dead);

-- name: take_leases
SELECT * FROM perdure.take_leases(:ids, :known, :waiting);

-- name: find_events
-- Events of the named processes that carry the operation id or the replay key asked for. By the two partial indexes.
SELECT p.id, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM unnest(:ids::text[], :operations::text[]) AS wanted(id, operation)
JOIN perdure.processes AS p ON p.id = wanted.id
JOIN perdure.events AS e ON e.row = p.row AND e.operation_id = wanted.operation
UNION
SELECT p.id, e.sequence, e.type, e.payload, e.at, e.replay_key, e.operation_id, e.operation_hash, e.codec, e.checksum
FROM unnest(:ids::text[], :replay_keys::text[]) AS wanted(id, replay_key)
JOIN perdure.processes AS p ON p.id = wanted.id
JOIN perdure.events AS e ON e.row = p.row AND e.replay_key = wanted.replay_key
ORDER BY 1, 2;

-- name: write_rows
SELECT w.*, perdure.now_ms() AS now_ms FROM perdure.write_rows(
    :new_rows, :new_ids, :new_lanes, :new_priorities, :new_statuses, :new_ready, :new_deadlines, :new_settles,
    :new_parents, :new_states, :new_bodies,
    :saved_rows, :saved_statuses, :saved_ready, :saved_deadlines, :saved_settles, :saved_states,
    :event_codec, :event_rows, :event_sequences, :event_types, :event_times, :event_replay_keys, :event_operations,
    :event_hashes, :event_checksums, :event_payloads,
    :lease_rows, :lease_stood_fences, :lease_stood_expiries, :lease_owners, :lease_incarnations, :lease_tokens,
    :lease_fences, :lease_claims, :lease_claimed, :lease_expires, :lease_boots, :lease_boot_expires, :lease_released,
    :lease_lanes, :lease_priorities, :lease_settles,
    :dropped_rows, :dropped_fences, :dropped_expiries, :progress_rows, :progress_bodies, :partly) AS w;

-- name: take_posted
SELECT * FROM perdure.take_posted(:wanted, :but);

-- name: next_rows
-- A block of integer names for new rows: this one and the 1,023 that follow it.
SELECT nextval(:sequence::text::regclass);

-- name: void_other_boots
-- A lease of another boot has lapsed, whatever its times say. Of use only where a given clock decides.
UPDATE perdure.leases SET boot_id = :boot_id, boot_expires_at = 0 WHERE boot_id <> :boot_id;

-- name: enrol_owner
INSERT INTO perdure.owners (incarnation, identity) VALUES (:incarnation, :identity)
ON CONFLICT (incarnation) DO UPDATE SET identity = excluded.identity;

-- name: withdraw_owners
DELETE FROM perdure.owners WHERE incarnation = ANY (:incarnations::text[]);
