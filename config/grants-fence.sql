-- What a `fence` step needs on the server that must take no more writes. An account of its own: the fence never locks the account
-- it is logged in with, and the backup's account goes on reading, for the last backup. Run as an administrator. Narrow the host to the
-- operators' and the agent's addresses. CREATE USER can change anybody's password: guard this account as you guard an administrator's.

-- Prints a password once; put it where the configuration's reference points. (MariaDB: leave IDENTIFIED BY RANDOM PASSWORD out, add
-- ACCOUNT LOCK, and set a password as grants-mariadb.sql says.)
CREATE USER IF NOT EXISTS 'planb_fence'@'10.0.%' IDENTIFIED BY RANDOM PASSWORD REQUIRE SSL;

-- CREATE USER: ALTER USER … ACCOUNT LOCK.
GRANT CREATE USER ON *.* TO 'planb_fence'@'10.0.%';
-- PROCESS: the application's sessions and open transactions; without it the server shows none, and nothing is proven.
GRANT PROCESS ON *.* TO 'planb_fence'@'10.0.%';
-- EVENT: events run under locked accounts too; without it they are hidden, and nothing is proven.
GRANT EVENT ON *.* TO 'planb_fence'@'10.0.%';
-- The fence's own record: what it changed, so that lifting it restores exactly that. (No backup carries this schema.) Without it the
-- operation's journal keeps the list.
GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON planb.* TO 'planb_fence'@'10.0.%';

-- Which accounts there are and which are locked. MySQL:
GRANT SELECT (User, Host, account_locked) ON mysql.user TO 'planb_fence'@'10.0.%';
-- MariaDB, where there is no smaller table:
-- GRANT SELECT ON mysql.global_priv TO 'planb_fence'@'10.0.%';

-- To end the application's sessions, one of these. A MySQL that you run yourself:
-- GRANT CONNECTION_ADMIN ON *.* TO 'planb_fence'@'10.0.%';
-- RDS, for MySQL and for MariaDB:
-- GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO 'planb_fence'@'10.0.%';
-- Azure Database for MySQL Flexible Server:
-- GRANT EXECUTE ON PROCEDURE mysql.az_kill TO 'planb_fence'@'10.0.%';
-- A MariaDB that you run yourself:
-- GRANT CONNECTION ADMIN ON *.* TO 'planb_fence'@'10.0.%';

-- Optional, on a server that you run yourself: stop events, and make the server read-only. Managed servers keep both to their parameters
-- (event_scheduler, read_only): there, let a `command` step set them. MySQL (needs CONNECTION_ADMIN as well):
-- GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO 'planb_fence'@'10.0.%';
-- MariaDB, read-only; and SUPER for events:
-- GRANT READ_ONLY ADMIN ON *.* TO 'planb_fence'@'10.0.%';
-- GRANT SUPER ON *.* TO 'planb_fence'@'10.0.%';

-- Optional, MySQL: an application account that holds SYSTEM_USER can be locked and ended only by one that holds it too.
-- GRANT SYSTEM_USER ON *.* TO 'planb_fence'@'10.0.%';
