-- What a role may do that runs processes, and one that only looks. `:role` stands for the role. Neither may change what
-- is in a log, take a process away, or alter the schema.

-- name: worker
GRANT USAGE ON SCHEMA perdure TO :role;
GRANT SELECT, INSERT, UPDATE ON perdure.processes, perdure.progress TO :role;
GRANT SELECT, INSERT ON perdure.registrations, perdure.events TO :role;
GRANT SELECT, INSERT, UPDATE, DELETE ON perdure.leases, perdure.owners, perdure.posted TO :role;
GRANT SELECT ON perdure.store, perdure.versions TO :role;
GRANT USAGE ON SEQUENCE perdure.process_rows TO :role;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA perdure TO :role;

-- name: reader
GRANT USAGE ON SCHEMA perdure TO :role;
GRANT SELECT ON ALL TABLES IN SCHEMA perdure TO :role;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA perdure TO :role;
