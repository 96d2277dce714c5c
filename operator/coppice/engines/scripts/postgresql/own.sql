-- Statements, one a row, by which the application's role has what the source's roles had in this database: it owns what a superuser owned, and is a
-- member of every other role that owns something. Nothing is returned where that is so already.
WITH here AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database()),
superusers AS (SELECT oid FROM pg_roles WHERE rolsuper),
spaces AS (
  SELECT oid, nspname, nspowner FROM pg_namespace n WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
),
extended AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
owners AS (
  SELECT DISTINCT refobjid AS oid FROM pg_shdepend, here
    WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o'
      AND (dbid = here.oid OR dbid = 0 AND classid = 'pg_database'::regclass AND objid = here.oid)
)
SELECT statement FROM (
  SELECT 1 AS step, CASE WHEN pg_has_role(rolname, :'app', 'MEMBER') THEN format('REASSIGN OWNED BY %I TO %I', rolname, :'app')
      ELSE format('GRANT %I TO %I', rolname, :'app') END AS statement
    FROM pg_roles JOIN owners USING (oid)
    WHERE NOT rolsuper AND rolname !~ '^pg_' AND rolname <> :'app' AND NOT pg_has_role(:'app', rolname, 'USAGE')
  UNION ALL
  SELECT 2, format('ALTER DATABASE %I OWNER TO %I', current_database(), :'app') FROM here WHERE datdba IN (TABLE superusers)
  UNION ALL
  SELECT 3, format('ALTER SCHEMA %I OWNER TO %I', nspname, :'app') FROM spaces
    WHERE nspowner IN (TABLE superusers) AND ('pg_namespace'::regclass::oid, oid) NOT IN (TABLE extended)
  UNION ALL
  SELECT 4, format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, :'app') FROM pg_class c JOIN spaces ON spaces.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relowner IN (TABLE superusers)
      AND ('pg_class'::regclass::oid, c.oid) NOT IN (TABLE extended)
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND relkind = 'S' AND deptype IN ('a', 'i'))
  UNION ALL
  SELECT 5, format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, :'app') FROM pg_proc p JOIN spaces ON spaces.oid = pronamespace
    WHERE proowner IN (TABLE superusers) AND ('pg_proc'::regclass::oid, p.oid) NOT IN (TABLE extended)
  UNION ALL
  SELECT 6, format('ALTER TYPE %s OWNER TO %I', t.oid::regtype, :'app') FROM pg_type t JOIN spaces ON spaces.oid = typnamespace
    WHERE typowner IN (TABLE superusers) AND ('pg_type'::regclass::oid, t.oid) NOT IN (TABLE extended)
      AND (typtype IN ('d', 'e', 'r') OR typtype = 'c' AND EXISTS (SELECT FROM pg_class WHERE oid = typrelid AND relkind = 'c'))
) s ORDER BY step
