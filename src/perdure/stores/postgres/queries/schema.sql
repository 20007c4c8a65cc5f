-- What is in the schema, for opening and migrating.

-- name: standing
-- Whether the schema exists, how many tables are in it, and whether one of them is ours.
SELECT to_regnamespace(:quoted) IS NOT NULL,
       (SELECT count(*) FROM pg_catalog.pg_class AS c WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relkind IN ('r', 'p')),
       to_regclass(:quoted || '.versions') IS NOT NULL;

-- name: version
SELECT coalesce(max(version), 0) FROM perdure.versions;

-- name: described
-- Every column, index, sequence and function, each as one line; the name of the schema is left out.
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END AS line
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
UNION ALL
SELECT 'index ' || replace(pg_get_indexdef(i.indexrelid), :shown || '.', '')
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = to_regnamespace(:quoted) AND i.indisvalid
UNION ALL
SELECT 'sequence ' || c.relname || ' by ' || s.seqincrement
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid
WHERE c.relnamespace = to_regnamespace(:quoted)
UNION ALL
SELECT 'function ' || p.proname || ' ' || md5(replace(p.prosrc, :quoted || '.', 'perdure.'))
FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = to_regnamespace(:quoted);
