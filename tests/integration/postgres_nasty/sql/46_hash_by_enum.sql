-- Hash partitions by enum: a value hashes by its oid, so that rows change partitions on the way (pg_dump loads them by the root).
SET search_path = partitions;
CREATE TABLE by_mood (m types.mood, n integer) PARTITION BY HASH (m);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE by_mood_2 PARTITION OF by_mood FOR VALUES WITH (MODULUS 4, REMAINDER 2) PARTITION BY LIST (n);
CREATE TABLE by_mood_2_all PARTITION OF by_mood_2 DEFAULT;
CREATE TABLE by_mood_3 PARTITION OF by_mood FOR VALUES WITH (MODULUS 4, REMAINDER 3);
INSERT INTO by_mood SELECT m, i FROM unnest(enum_range(NULL::types.mood)) m, generate_series(1, 5) i;
