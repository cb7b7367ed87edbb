CREATE TABLE tags (text text PRIMARY KEY);
