-- All of the server: nobody can log in but the administrator, and nobody has more than the data.
SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname) FROM pg_database WHERE NOT datallowconn AND datname <> 'template0' \gexec
SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE datconnlimit = -2 \gexec
SELECT format('ALTER DATABASE %I CONNECTION LIMIT -1', datname) FROM pg_database WHERE datconnlimit >= 0 \gexec
SELECT 'CREATE DATABASE postgres' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'postgres') \gexec
-- A server's first role is a superuser for good: it may bear any name, that of the application's login too.
SELECT format('ALTER ROLE %I RENAME TO coppice_bootstrap', rolname) FROM pg_roles WHERE oid = 10 AND rolname = :'app' \gexec
SELECT format('CREATE ROLE %I', :'app') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'app') \gexec
SELECT format('ALTER ROLE %I NOSUPERUSER NOLOGIN NOREPLICATION NOCREATEROLE NOCREATEDB PASSWORD NULL', rolname)
  FROM pg_roles WHERE rolname !~ '^pg_' AND oid <> 10 AND rolname <> :'admin' \gexec
SELECT format('ALTER ROLE %I NOLOGIN PASSWORD NULL', rolname) FROM pg_roles WHERE oid = 10 AND rolname <> :'admin' \gexec
-- Rights on the server's files, programs and sessions; and nobody becomes the administrator.
SELECT DISTINCT format('REVOKE %I FROM %I CASCADE', granted.rolname, member.rolname)
  FROM pg_auth_members m JOIN pg_roles granted ON granted.oid = m.roleid JOIN pg_roles member ON member.oid = m.member
  WHERE granted.oid = 10 OR granted.rolname = :'admin'
    OR granted.rolname ~ '^pg_' AND granted.rolname NOT IN ('pg_read_all_data', 'pg_write_all_data', 'pg_database_owner') \gexec
-- What a role or database sets for its sessions is part of the data, but for libraries to load.
SELECT format('ALTER %s RESET %I', place, split_part(setting, '=', 1)) FROM (
  SELECT CASE
      WHEN setrole = 0 AND setdatabase = 0 THEN 'ROLE ALL'
      WHEN setrole = 0 THEN format('DATABASE %I', datname)
      WHEN setdatabase = 0 THEN format('ROLE %I', rolname)
      ELSE format('ROLE %I IN DATABASE %I', rolname, datname)
    END AS place, unnest(setconfig) AS setting
  FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase
) s WHERE setting ~ '^(session|local)_preload_libraries=' AND place IS NOT NULL \gexec
