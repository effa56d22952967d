#!/bin/sh
# Metabase keeps its own questions and users in a database of its own; run once, when the cluster is made.
set -eu
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --set password="$METABASE_DB_PASSWORD" <<'SQL'
CREATE ROLE metabase LOGIN PASSWORD :'password';
CREATE DATABASE metabase OWNER metabase;
REVOKE CONNECT, TEMPORARY ON DATABASE metabase FROM PUBLIC;
SQL
