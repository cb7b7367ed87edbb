CREATE TABLE places (text text PRIMARY KEY);
