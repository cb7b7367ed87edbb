WITH RECURSIVE ours AS (SELECT d.oid, d.datname, d.datacl, d.datdba FROM pg_database d
        WHERE d.datdba = (SELECT oid FROM pg_roles WHERE rolname = $1) AND d.datallowconn
          AND d.datname <> current_database() AND ($2::text IS NULL OR d.datname = $2)),
grants AS (SELECT o.oid AS database, a.grantee
    FROM ours o, aclexplode(coalesce(o.datacl, acldefault('d', o.datdba))) a
    WHERE a.privilege_type = 'CONNECT' AND a.grantee <> o.datdba),
reach (database, role) AS (
    SELECT database, grantee FROM grants WHERE grantee <> 0
    UNION SELECT x.database, m.member FROM reach x JOIN pg_auth_members m ON m.roleid = x.role JOIN pg_roles r ON r.oid = m.member
        WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit))
SELECT o.datname::text AS database, r.rolname::text AS role
FROM reach x JOIN ours o ON o.oid = x.database JOIN pg_roles r ON r.oid = x.role
WHERE r.rolcanlogin AND NOT r.rolsuper
UNION ALL SELECT o.datname::text, 'PUBLIC' FROM grants g JOIN ours o ON o.oid = g.database WHERE g.grantee = 0
