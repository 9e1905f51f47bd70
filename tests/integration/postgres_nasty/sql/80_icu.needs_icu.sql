-- Collations of ICU, where both servers have it.
CREATE SCHEMA icu;
SET search_path = icu;
CREATE COLLATION numeric_order (PROVIDER = icu, LOCALE = 'en-u-kn-true');
CREATE COLLATION "ignore case" (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE TABLE collated (a text COLLATE numeric_order, b text COLLATE "ignore case" UNIQUE, c text COLLATE "de-x-icu");
INSERT INTO collated VALUES ('a10', 'Abc', 'ä'), ('a9', 'xyz', 'z');
CREATE INDEX collated_a ON collated (a);
CREATE VIEW sorted AS SELECT a FROM collated ORDER BY a COLLATE numeric_order;
CREATE TABLE parts (t text COLLATE numeric_order) PARTITION BY RANGE (t);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('a10');
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM ('a10') TO (MAXVALUE);
INSERT INTO parts VALUES ('a9'), ('a11');
