-- Text without any encoding: bytes that are valid in none, in names, values and comments.
CREATE TABLE "tÿþ" ("cé" text DEFAULT '€', n integer);
INSERT INTO "tÿþ" SELECT chr(i), i FROM generate_series(1, 255) i;
INSERT INTO "tÿþ" VALUES ('Ã© utf-8', -1), ('é latin-1', -2), ('ÿþ€\N\', -3), (DEFAULT, 0);
COMMENT ON COLUMN "tÿþ"."cé" IS ' ';
CREATE SEQUENCE "sé";
SELECT nextval('"sé"');
CREATE TABLE "Ã©" (a integer PRIMARY KEY);
INSERT INTO "Ã©" VALUES (1);
CREATE TABLE "große ÿ" ("spälte" text);
INSERT INTO "große ÿ" SELECT repeat(chr(i % 255 + 1), 100) || E'\t' || i FROM generate_series(1, 45000) i;
