WITH admin AS (SELECT oid FROM pg_roles WHERE rolname = $1),
provisioner AS (SELECT oid FROM pg_roles WHERE rolname = ANY(ARRAY[$1, $2, $3])),
links AS (SELECT m.roleid, m.member, g.rolname AS "group", b.rolname AS grantor, m.admin_option AS admin,
        coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true) AS inherit,
        coalesce((to_jsonb(m) ->> 'set_option')::bool, true) AS set
    FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid LEFT JOIN pg_roles b ON b.oid = m.grantor),
memberships AS (SELECT l.member, bool_or((l.inherit OR l.set) AND l.roleid IN (SELECT oid FROM provisioner)) AS acts_as_admin,
        bool_or(l."group" ~ '_(owner|app|mig|[vt][0-9]+)$' AND ($4::text IS NULL OR starts_with(l."group", $4 || '_')))
            AS is_in_tenant,
        jsonb_agg(jsonb_build_object('group', l."group", 'grantor', l.grantor, 'admin', l.admin, 'inherit', l.inherit,
            'set', l.set) ORDER BY l."group", l.grantor) AS memberships
    FROM links l WHERE l.member <> (SELECT oid FROM admin) GROUP BY 1),
mine AS (SELECT l.roleid, bool_or(l.admin) AS is_ours FROM links l
    WHERE l.member = (SELECT oid FROM admin) GROUP BY 1),
settings AS (SELECT s.setrole, array_agg(coalesce(d.datname || ': ', '') || split_part(e.setting, '=', 1)
            || CASE WHEN split_part(e.setting, '=', 1) = 'role' THEN '=' || left(substr(e.setting, 6), 64) ELSE '' END
            ORDER BY d.datname, e.setting) AS settings
    FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) e (setting) LEFT JOIN pg_database d ON d.oid = s.setdatabase
    WHERE s.setrole <> 0 GROUP BY 1),
rights AS (SELECT x.role, array_agg(x."right" ORDER BY x."right") AS rights FROM (
        SELECT a.grantee AS role, d.datname || '/' || a.privilege_type AS "right"
            FROM pg_database d CROSS JOIN aclexplode(d.datacl) a WHERE a.grantee NOT IN (0, d.datdba)
        UNION ALL SELECT d.datdba, d.datname || '/OWNER' FROM pg_database d WHERE d.datdba <> (SELECT oid FROM admin)) x
    GROUP BY 1),
sessions AS (SELECT a.usesysid, count(*) AS sessions FROM pg_stat_activity a WHERE a.usesysid IS NOT NULL GROUP BY 1)
SELECT r.rolname::text AS name, r.rolcanlogin AS can_login,
    array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL) AS privileges,
    r.rolconnlimit AS connection_limit, coalesce(r.rolvaliduntil <= now(), false) AS is_expired, left(c.description, 200) AS comment,
    current_setting('server_version_num')::int < 160000 OR coalesce(o.is_ours, false) AS is_ours,
    coalesce(m.memberships, '[]') AS memberships, coalesce(s.settings, '{}') AS settings,
    coalesce(t.rights, '{}') AS database_rights, coalesce(n.sessions, 0) AS sessions
FROM pg_roles r
    LEFT JOIN pg_shdescription c ON c.objoid = r.oid AND c.classoid = 'pg_authid'::regclass
    LEFT JOIN mine o ON o.roleid = r.oid
    LEFT JOIN memberships m ON m.member = r.oid
    LEFT JOIN settings s ON s.setrole = r.oid
    LEFT JOIN rights t ON t.role = r.oid
    LEFT JOIN sessions n ON n.usesysid = r.oid
WHERE r.rolname !~ '^pg_' AND (m.is_in_tenant OR m.acts_as_admin OR r.rolname = ANY(ARRAY[$1, $2, $3])
    OR (r.rolname ~ '_(owner|app|mig|[vt][0-9]+)$' OR starts_with(c.description, 'tenantry '))
        AND ($4::text IS NULL OR starts_with(r.rolname, $4 || '_')))
