SELECT 'prepared' AS kind, x.gid AS name, x.owner::text AS owner, x.database::text AS database,
    extract(epoch FROM now() - x.prepared)::float8 AS age_seconds, NULL::bigint AS held_bytes, false AS is_active, NULL AS wal_status
FROM pg_prepared_xacts x
    JOIN pg_database d ON d.datname = x.database JOIN pg_roles o ON o.oid = d.datdba AND o.rolname = $1
UNION ALL
SELECT 'slot', s.slot_name::text, NULL, s.database::text, NULL,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn)::bigint END, s.active, s.wal_status
FROM pg_replication_slots s
