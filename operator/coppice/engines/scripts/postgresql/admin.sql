-- What holds in a session of the administrator is what that brings along: its role has nothing set, and no event trigger runs, of whatever superuser's
-- it is; one on login would before the session's first statement. The setting is of PostgreSQL 17, as those are. Stronger than a role's would be one for
-- the role in a database. Applications' sessions run the triggers as before: they are part of the data.
SELECT format('ALTER ROLE %I IN DATABASE %I RESET ALL', :'admin', datname)
  FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = :'admin') \gexec
ALTER ROLE :"admin" RESET ALL;
SELECT format('ALTER ROLE %I SET event_triggers = off', :'admin') WHERE current_setting('server_version_num')::int >= 170000 \gexec
