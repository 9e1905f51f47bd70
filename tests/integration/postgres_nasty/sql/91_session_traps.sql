-- Settings of the database that every session starts with, and that a dump, a digest or a load must not fall for.
ALTER DATABASE :"DBNAME" SET search_path = extremes, types, "odd schema, with comma", words;
ALTER DATABASE :"DBNAME" SET "DateStyle" = 'SQL, DMY';
ALTER DATABASE :"DBNAME" SET "IntervalStyle" = 'sql_standard';
ALTER DATABASE :"DBNAME" SET "TimeZone" = 'Asia/Kathmandu';
ALTER DATABASE :"DBNAME" SET extra_float_digits = -15;
ALTER DATABASE :"DBNAME" SET bytea_output = 'escape';
ALTER DATABASE :"DBNAME" SET xmloption = 'document';
ALTER DATABASE :"DBNAME" SET client_encoding = 'LATIN1';
ALTER DATABASE :"DBNAME" SET standard_conforming_strings = off;
ALTER DATABASE :"DBNAME" SET row_security = off;
ALTER DATABASE :"DBNAME" SET statement_timeout = '20s';
ALTER DATABASE :"DBNAME" SET lock_timeout = '5s';
ALTER DATABASE :"DBNAME" SET idle_in_transaction_session_timeout = '1s';
ALTER DATABASE :"DBNAME" SET idle_session_timeout = '2s';
ALTER DATABASE :"DBNAME" SET default_transaction_isolation = 'serializable';
