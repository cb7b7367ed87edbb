SELECT current_setting('server_version_num')::int AS version,
    clock_timestamp() AS clock,
    pg_is_in_recovery() AS is_in_recovery,
    current_setting('default_transaction_read_only')::bool AS is_read_only,
    current_setting('max_connections')::int AS max_connections,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved_connections,
    coalesce((SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()), false) AS uses_tls,
    pg_has_role('pg_read_all_stats', 'USAGE') AS can_see_sessions,
    has_database_privilege('public', current_database(), 'CONNECT') AS is_maintenance_public,
    (SELECT pg_encoding_to_char(t.encoding) || ' ' || t.datcollate || ' ' || t.datctype || ' ' || t.datlocprovider::text
            || coalesce(' ' || coalesce(to_jsonb(t) ->> 'datlocale', to_jsonb(t) ->> 'daticulocale'), '')
        FROM pg_database t WHERE t.datname = 'template0') AS locale
