WITH r AS (SELECT (SELECT oid FROM pg_roles WHERE rolname = current_database() || '_owner') AS owner,
        (SELECT oid FROM pg_roles WHERE rolname = current_database() || '_app') AS app,
        (SELECT oid FROM pg_database WHERE datname = current_database()) AS db),
ext AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
(SELECT CASE s.deptype WHEN 'o' THEN 'object_owner' ELSE 'object_granted' END AS kind,
        pg_describe_object(s.classid, s.objid, s.objsubid) AS object, s.refobjid::regrole::text AS role
    FROM pg_shdepend s, r
    WHERE s.dbid = r.db AND s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('o', 'a', 'r')
      AND s.refobjid IS DISTINCT FROM r.owner AND s.refobjid IS DISTINCT FROM r.app
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'object_owner', pg_describe_object(o.classid, o.objid, 0), '10'::oid::regrole::text
    FROM (SELECT 'pg_class'::regclass::oid, c.oid FROM pg_class c
            WHERE c.relowner = 10 AND c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p WHERE p.proowner = 10 AND p.oid >= 16384
        UNION ALL SELECT 'pg_namespace'::regclass, n.oid FROM pg_namespace n
            WHERE n.nspowner = 10 AND n.oid >= 16384 AND n.nspname !~ '^pg_') o (classid, objid)
    WHERE NOT EXISTS (SELECT FROM ext WHERE ext.classid = o.classid AND ext.objid = o.objid)
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'schema_owner', n.nspname, n.nspowner::regrole::text FROM pg_namespace n, r
    WHERE n.nspname = 'public' AND n.nspowner IS DISTINCT FROM r.owner
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'schema_public', a.privilege_type || ' on schema ' || n.nspname, NULL
    FROM pg_namespace n CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    WHERE a.grantee = 0 AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM ext WHERE ext.classid = 'pg_namespace'::regclass AND ext.objid = n.oid)
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'object_public', a.privilege_type || ' on ' || c.oid::regclass, NULL
    FROM pg_class c CROSS JOIN aclexplode(c.relacl) a, r WHERE a.grantee = 0 AND c.relowner IN (r.owner, r.app)
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'object_public', 'EXECUTE on ' || p.oid::regprocedure, NULL
    FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a, r
    WHERE a.grantee = 0 AND p.proowner = r.owner
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'app_can_create', n.nspname, NULL FROM pg_namespace n, r
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND r.app IS NOT NULL
      AND has_schema_privilege(r.app, n.oid, 'CREATE')
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'index_invalid', i.indexrelid::regclass::text, i.indrelid::regclass::text
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind <> 'I' CROSS JOIN r
    WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
      AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.database = r.db
          AND l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock')
    ORDER BY 1, 2, 3 LIMIT 101)
UNION ALL
(SELECT 'event_trigger', e.evtname::text, e.evtowner::regrole::text FROM pg_event_trigger e WHERE e.evtenabled <> 'D'
    ORDER BY 1, 2, 3 LIMIT 101)
