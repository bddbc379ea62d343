-- The account PlanB reads as, on MariaDB 10.6 and newer. Narrow the host to the agent's address. It cannot write or lock.
--
-- Grants are on *.*, because the server hides what an account may not see and reports no error: with grants on one
-- schema, a schema created tomorrow would be missing from every backup.

-- Locked until you set a password: ALTER USER 'planb'@'10.0.%' IDENTIFIED BY '…' ACCOUNT UNLOCK, typed, not saved.
-- REQUIRE SSL: it never travels in the clear.
CREATE USER IF NOT EXISTS 'planb'@'10.0.%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 12 ACCOUNT LOCK;

-- SELECT: rows and table definitions; before 11.3 also routines' bodies, which are then read from mysql.proc.
GRANT SELECT ON *.* TO 'planb'@'10.0.%';
-- SHOW VIEW: without it every view's definition is empty.
GRANT SHOW VIEW ON *.* TO 'planb'@'10.0.%';
-- TRIGGER: without it triggers are not listed.
GRANT TRIGGER ON *.* TO 'planb'@'10.0.%';
-- EVENT: without it events are not listed.
GRANT EVENT ON *.* TO 'planb'@'10.0.%';
-- BINLOG MONITOR: the binary log position that belongs to the backup (called REPLICATION CLIENT before 10.5).
GRANT BINLOG MONITOR ON *.* TO 'planb'@'10.0.%';
-- SLAVE MONITOR: whether this is a replica, and how far it is.
GRANT SLAVE MONITOR ON *.* TO 'planb'@'10.0.%';
-- PROCESS: who waits for whom, so that PlanB's readers yield to the application.
GRANT PROCESS ON *.* TO 'planb'@'10.0.%';
-- SHOW CREATE ROUTINE: routines' bodies without reading mysql.proc; exists from 11.3 on, older servers skip this line.
/*M!110301 GRANT SHOW CREATE ROUTINE ON *.* TO 'planb'@'10.0.%' */;

-- Several readers at one exact point in time need no grant here: MariaDB tells each snapshot's position.

-- Optional, on a replica with pause_replica = true. REPLICATION SLAVE ADMIN: stop and start the applier for the snapshot.
-- GRANT REPLICATION SLAVE ADMIN ON *.* TO 'planb'@'10.0.%';

-- Optional, only with lock = "tables". LOCK TABLES: see why not in planb.toml.
-- GRANT LOCK TABLES ON *.* TO 'planb'@'10.0.%';
