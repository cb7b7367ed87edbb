CREATE TABLE codes (code text NOT NULL);
INSERT INTO codes VALUES ('x'), ('x');
CREATE UNIQUE INDEX codes_code ON codes (code);
