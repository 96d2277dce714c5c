SELECT json_build_object(
  'v', split_part(current_setting('server_version'), ' ', 1), 's', system_identifier::text, 'h', :'head', 'm', current_database(),
  'd', (SELECT json_agg(datname ORDER BY datname) FROM pg_database
    WHERE NOT datistemplate AND datname <> 'postgres' OR datname = current_database()),
  'f', :'findings'::json, 'l', :'ledger'::json
) FROM pg_control_system();
