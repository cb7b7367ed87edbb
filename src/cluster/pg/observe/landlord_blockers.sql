WITH waiting AS (SELECT DISTINCT l.pid FROM pg_locks l WHERE NOT l.granted AND l.pid IS NOT NULL),
edges AS (SELECT w.pid AS waiter, b.pid AS blocker FROM waiting w CROSS JOIN unnest(pg_blocking_pids(w.pid)) b (pid))
SELECT e.blocker AS pid, a.datname::text AS database, a.usename::text AS login, a.application_name AS application,
    a.state, a.backend_start AS started_at, a.xact_start AS transaction_at, extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS idle_seconds,
    count(DISTINCT e.waiter) AS waiters,
    array_agg(DISTINCT coalesce(upper(substring(q.query FROM '^\s*([A-Za-z]+)')), '?')) AS waiting_statements,
    coalesce(pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'), false) AS can_signal
FROM edges e JOIN pg_stat_activity a ON a.pid = e.blocker LEFT JOIN pg_stat_activity q ON q.pid = e.waiter
WHERE a.datname = current_database()
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, a.usesysid
