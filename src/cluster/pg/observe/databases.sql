SELECT d.datname::text AS name, o.rolname::text AS owner, d.datallowconn AS is_open, d.datconnlimit AS connection_limit,
    left(c.description, 200) AS comment,
    d.datcollversion AS collation_version, pg_database_collation_actual_version(d.oid) AS actual_collation_version,
    coalesce((to_jsonb(d) ->> 'dathasloginevt')::bool, false) AS has_login_trigger,
    ARRAY(SELECT coalesce(g.rolname, 'PUBLIC') || '/' || a.privilege_type
        FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE o.rolname = $1 AND a.grantee <> d.datdba ORDER BY 1) AS grants
FROM pg_database d
    LEFT JOIN pg_roles o ON o.oid = d.datdba
    LEFT JOIN pg_shdescription c ON c.objoid = d.oid AND c.classoid = 'pg_database'::regclass
WHERE NOT d.datistemplate AND d.datname NOT IN ('postgres', current_database()) AND ($2::text IS NULL OR d.datname = $2)
