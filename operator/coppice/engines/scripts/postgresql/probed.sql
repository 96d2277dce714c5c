-- The table whose first rows are the proof that a copy holds what it should: the largest one.
SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence = 'p' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY relpages DESC, c.oid LIMIT 1
