-- What `planb restore` needs on the server that it restores to. Azure Database for MySQL Flexible Server gives its
-- administrator all of these; on another server make an account of its own. Run as an administrator.
CREATE USER IF NOT EXISTS 'planb_restore'@'10.0.%' IDENTIFIED BY RANDOM PASSWORD REQUIRE SSL;

-- Schemas, tables, rows, keys, views, routines, triggers and events; SELECT to compare afterwards.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, CREATE ROUTINE,
  ALTER ROUTINE, EXECUTE, TRIGGER, EVENT ON *.* TO 'planb_restore'@'10.0.%';

-- Optional, and managed servers give it to nobody: objects keep the definers that they had at the source.
-- GRANT SET_ANY_DEFINER ON *.* TO 'planb_restore'@'10.0.%';
-- Optional: tables without a primary key stay without one where sql_generate_invisible_primary_key is on.
-- GRANT SESSION_VARIABLES_ADMIN ON *.* TO 'planb_restore'@'10.0.%';
-- Optional: `planb restore --accounts` makes the application's accounts. It can give only what it holds itself, so give these
-- rights for the schemas that are restored, or on *.*:
-- GRANT CREATE USER ON *.* TO 'planb_restore'@'10.0.%';
-- GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON *.* TO 'planb_restore'@'10.0.%' WITH GRANT OPTION;
-- Optional: to know which accounts there are. Without it a definer is taken to be there.
-- GRANT SELECT ON mysql.user TO 'planb_restore'@'10.0.%';
