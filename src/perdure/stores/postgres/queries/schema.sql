-- What is in the schema, for opening and migrating.

-- name: standing
-- Whether the schema exists, how many tables are in it, and whether one of them is ours.
SELECT to_regnamespace(:quoted) IS NOT NULL,
       (SELECT count(*) FROM pg_catalog.pg_class AS c WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relkind IN ('r', 'p')),
       to_regclass(:quoted || '.versions') IS NOT NULL;

-- name: version
SELECT coalesce(max(version), 0) FROM perdure.versions;

-- name: described
-- Every column, index, sequence and function, each as one line; the name of the schema is left out, and so is whether a
-- table is partitioned, which is the choice of whoever made it. A function is told by
-- a hash over all that decides what it does. (Not over pg_get_functiondef: its layout is the server's own.)
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END AS line
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
UNION ALL
SELECT 'index ' || replace(replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON '), :shown || '.', '')
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = to_regnamespace(:quoted) AND i.indisvalid
UNION ALL
SELECT 'sequence ' || c.relname || ' by ' || s.seqincrement
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid
WHERE c.relnamespace = to_regnamespace(:quoted)
UNION ALL
SELECT 'function ' || p.proname || ' ' || encode(sha256(convert_to(concat_ws(E'\n',
           replace(pg_get_function_arguments(p.oid), :shown || '.', ''),
           replace(pg_get_function_result(p.oid), :shown || '.', ''),
           l.lanname, p.provolatile, p.proisstrict, p.prosecdef, array_to_string(p.proconfig, ', '),
           replace(p.prosrc, :quoted || '.', 'perdure.')), 'UTF8')), 'hex')
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = to_regnamespace(:quoted);
