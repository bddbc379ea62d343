-- The account PlanB reads as, on RDS for MySQL; run it as the instance's master user. Narrow the host to the agent's
-- subnet. It cannot write or lock.
--
-- Grants are on *.*, because MySQL hides what an account may not see and reports no error: with grants on one schema,
-- a schema created tomorrow would be missing from every backup.

-- Prints a password once; put it where the configuration's reference points. REQUIRE SSL: it never travels in the clear.
CREATE USER IF NOT EXISTS 'planb'@'10.0.%' IDENTIFIED BY RANDOM PASSWORD REQUIRE SSL WITH MAX_USER_CONNECTIONS 12;
-- Instead of a password, with login = "rds-iam" and IAM database authentication enabled on the instance:
-- CREATE USER IF NOT EXISTS 'planb'@'10.0.%' IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL;

-- SELECT: rows, table definitions, and on *.* also procedures' and functions' bodies. SHOW_ROUTINE is therefore not
-- needed, and the master user may be unable to grant it. So SELECT must stay global here.
GRANT SELECT ON *.* TO 'planb'@'10.0.%';
-- SHOW VIEW: without it every view's definition is empty.
GRANT SHOW VIEW ON *.* TO 'planb'@'10.0.%';
-- TRIGGER: without it triggers are not listed.
GRANT TRIGGER ON *.* TO 'planb'@'10.0.%';
-- EVENT: without it events are not listed.
GRANT EVENT ON *.* TO 'planb'@'10.0.%';
-- REPLICATION CLIENT: the binary log position that belongs to the backup, and whether this is a replica.
GRANT REPLICATION CLIENT ON *.* TO 'planb'@'10.0.%';
-- PROCESS: who waits for whom, so that PlanB's readers yield to the application.
GRANT PROCESS ON *.* TO 'planb'@'10.0.%';

-- Not here: FLUSH TABLES WITH READ LOCK and pausing a replica's applier need rights that RDS gives nobody. One session
-- reads alone, which is as consistent.
