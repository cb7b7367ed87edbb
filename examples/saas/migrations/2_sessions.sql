-- In the tenant's own database: a cookie of one tenant is worth nothing at another.
CREATE TABLE sessions (
    hash       bytea PRIMARY KEY,
    email      text NOT NULL,
    csrf       text NOT NULL,
    expires_at timestamptz NOT NULL DEFAULT now() + interval '12 hours'
);
