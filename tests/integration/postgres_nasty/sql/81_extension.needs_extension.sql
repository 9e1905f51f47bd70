-- An extension with configuration tables: only what the owner added is in a dump, the rest comes with the extension.
CREATE SCHEMA "of the = extension";
CREATE EXTENSION holdfast_nasty SCHEMA "of the = extension";
SET search_path = "of the = extension";
INSERT INTO preferences VALUES (1, 'all of it is dumped'), (2, E'a\tb');
INSERT INTO "Mixed = rows" (name, builtin) VALUES ('mine', false), ('mine too', false);
INSERT INTO not_configuration VALUES (1, 'by the extension''s owner, lost in a dump') ON CONFLICT DO NOTHING;
DELETE FROM not_configuration WHERE a = 1;
SELECT setval('ticket', 77);
CREATE TABLE public.of_extension_type (k kind DEFAULT 'small');
INSERT INTO public.of_extension_type VALUES ('small'), ('large');
GRANT SELECT ON preferences TO nasty_reader;
