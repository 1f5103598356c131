-- Run once, when the data folder of PostgreSQL is made: the catalog has the database POSTGRES_DB, Prefect this one.
CREATE DATABASE prefect;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
