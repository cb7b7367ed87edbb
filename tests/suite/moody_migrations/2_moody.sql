-- A sequence counts on through a rollback.
DO $$ BEGIN
    IF nextval('tries') < 3 THEN RAISE 'not yet' USING ERRCODE = '40001'; END IF;
END $$;
