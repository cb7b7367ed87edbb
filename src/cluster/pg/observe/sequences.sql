SELECT s.seqrelid::pg_catalog.regclass::text AS sequence, s.seqincrement AS increment,
    CASE WHEN pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE') OR pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT')
         THEN pg_catalog.pg_sequence_last_value(s.seqrelid) END AS last_value,
    NOT (pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE') OR pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT')) AS is_hidden,
    s.seqmin AS smallest,
    least(s.seqmax, CASE a.atttypid WHEN 'pg_catalog.int2'::pg_catalog.regtype THEN 32767
        WHEN 'pg_catalog.int4'::pg_catalog.regtype THEN 2147483647 ELSE s.seqmax END) AS largest
FROM pg_catalog.pg_sequence s
    LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.seqrelid
        AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE NOT s.seqcycle AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
    WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = s.seqrelid AND e.deptype = 'e')
ORDER BY s.seqrelid LIMIT 1001
