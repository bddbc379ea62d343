-- The account PlanB reads as, on MySQL 8.0.23 and newer that you run yourself. Narrow the host to the agent's address.
-- It cannot write, and cannot lock unless you say so below.
--
-- Grants are on *.*, because MySQL hides what an account may not see and reports no error: with grants on one schema,
-- a schema created tomorrow would be missing from every backup.

-- Prints a password once; put it where the configuration's reference points. REQUIRE SSL: it never travels in the clear.
CREATE USER IF NOT EXISTS 'planb'@'10.0.%' IDENTIFIED BY RANDOM PASSWORD REQUIRE SSL WITH MAX_USER_CONNECTIONS 12;

-- SELECT: rows, and table definitions.
GRANT SELECT ON *.* TO 'planb'@'10.0.%';
-- SHOW VIEW: without it every view's definition is empty.
GRANT SHOW VIEW ON *.* TO 'planb'@'10.0.%';
-- TRIGGER: without it triggers are not listed.
GRANT TRIGGER ON *.* TO 'planb'@'10.0.%';
-- EVENT: without it events are not listed.
GRANT EVENT ON *.* TO 'planb'@'10.0.%';
-- SHOW_ROUTINE: procedures' and functions' bodies. SELECT on *.* shows them too; this one still does if SELECT is narrowed.
GRANT SHOW_ROUTINE ON *.* TO 'planb'@'10.0.%';
-- REPLICATION CLIENT: the binary log position that belongs to the backup, and whether this is a replica.
GRANT REPLICATION CLIENT ON *.* TO 'planb'@'10.0.%';
-- PROCESS: who waits for whom, so that PlanB's readers yield to the application.
GRANT PROCESS ON *.* TO 'planb'@'10.0.%';

-- Optional. FLUSH_TABLES: several readers at one exact point in time (a lock of some milliseconds). Without it one
-- session reads alone, which is as consistent and slower on machines with many cores.
-- GRANT FLUSH_TABLES ON *.* TO 'planb'@'10.0.%';

-- Optional, on a replica with pause_replica = true. REPLICATION_SLAVE_ADMIN: stop and start the applier for the snapshot.
-- GRANT REPLICATION_SLAVE_ADMIN ON *.* TO 'planb'@'10.0.%';

-- Optional, only with lock = "tables". LOCK TABLES: see why not in planb.toml.
-- GRANT LOCK TABLES ON *.* TO 'planb'@'10.0.%';

-- Optional, where partial_revokes = ON: PlanB never reads the server's accounts and their password hashes.
-- REVOKE SELECT ON mysql.* FROM 'planb'@'10.0.%';
