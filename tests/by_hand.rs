//! Promise 2, to the letter: the commands on the runbook's page "recovery by hand", as they are printed, restore a backup to an
//! Azure-like standby; and stop where the backup is not whole. Those in the README are the same (`tests/runbook.rs`). In the place of `az` stands a
//! program that copies from the store's directory; `mysql` is the real client, told where STANDBY is and who ADMIN.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use planb::config::Config;
use planb::runbook::{Language, Printing, print};
use support::planb::text;
use support::{AZURE_LIKE_ARGS, Flavor, Planb, Server, azure_like_admin, reader, tls_files};

/// The page's commands, for a store in Azure.
fn commands() -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recovery.toml");
    block(&Config::load(&example).expect("an example"))
}

/// And for a directory, which somebody may have mounted.
fn commands_of_a_directory(store: &Path) -> String {
    let step = "[[failover_steps]]\nname = \"look\"\nstage = 1\nkind = \"manual\"\ntext = \"Look.\"\n";
    let text = format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n[store]\nurl = \"file://{}\"\n{step}",
        store.display()
    );
    block(&Config::parse(&text).expect("valid"))
}

fn block(config: &Config) -> String {
    let printing = Printing {
        config: "/etc/planb/planb.toml".to_owned(),
        at: "2026-01-01T00:00:00Z".parse().expect("a time"),
    };
    let page = print(config, Language::English, Some("by-hand"), &printing).expect("a page");
    let block = page.split("```bash\n").nth(1).expect("a block of commands");
    block.split("```").next().unwrap_or_default().to_owned()
}

fn tool(dir: &Path, name: &str, script: &str) {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/bash\nset -eu\n{script}\n")).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
}

#[test]
fn the_commands_of_the_page_restore_a_backup() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql(
        "CREATE USER app@'%'; GRANT ALL ON *.* TO app@'%'; CREATE DATABASE bank; USE bank;
         CREATE TABLE money (id INT PRIMARY KEY, n INT, note TEXT); INSERT INTO money VALUES (1, 2, '/*!50013 DEFINER=`x`@`y` */'), (2, 1, '한글 😀');
         INSERT INTO money VALUES (3, 0, '\n/*!50013 DEFINER=`x`@`y` */\n');
         CREATE TABLE keyless (x INT); INSERT INTO keyless VALUES (1), (1);
         CREATE DEFINER=app@'%' VIEW rich AS SELECT id FROM money WHERE n > 1;
         CREATE DEFINER=app@'%' FUNCTION f(a INT) RETURNS INT DETERMINISTIC RETURN a + 1 /* kept */;
         CREATE DEFINER=app@'%' TRIGGER t BEFORE INSERT ON money FOR EACH ROW SET NEW.n = 5;
         CREATE DEFINER=app@'%' EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO DELETE FROM money;",
    );
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.backup(&[]);
    source.sql("INSERT INTO bank.keyless VALUES (3)");
    let newest = planb.backup(&[]);

    let dir = tempfile::tempdir().expect("a directory");
    let files = tls_files(dir.path());
    let mut args = files.server_args();
    args.extend(AZURE_LIKE_ARGS.iter().map(|&arg| arg.to_owned()));
    args.push("--log-bin-trust-function-creators=ON".to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let target = Server::start(Flavor::MySql, &args);
    let (admin, password) = azure_like_admin(&target);

    // In the place of Azure a directory, in the place of the standby a local server; everything else is as it is written.
    let tools = dir.path().join("tools");
    std::fs::create_dir(&tools).expect("a directory");
    tool(
        &tools,
        "az",
        r#"[ "$1 $2" = "storage blob" ]
verb=$3; shift 3; prefix= name= file=
while [ $# -gt 1 ]; do
    case $1 in --prefix) prefix=$2 ;; --name) name=$2 ;; --file) file=$2 ;; esac
    shift
done
case $verb in
    list) cd "$STORE"; find . -type f | sed 's|^\./||' | grep "^$prefix" | sort -r ;;
    download) cp "$STORE/$name" "$file" ;;
    *) exit 1 ;;
esac"#,
    );
    let client = target.client_as(&admin);
    tool(
        &tools,
        "mysql",
        &format!(
            "args=()\nfor arg; do case $arg in STANDBY) args+=(127.0.0.1 --port={} --protocol=tcp --ssl-mode=VERIFY_CA --ssl-ca={}) ;; ADMIN) args+=({admin}) ;; -p) ;; *) args+=(\"$arg\") ;; esac; done\nexec {} --no-defaults --default-character-set=utf8mb4 \"${{args[@]}}\"",
            target.port,
            files.ca.display(),
            client.get_program().display()
        ),
    );
    let run_these = |commands: &str| -> Output {
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(commands).current_dir(dir.path()).env("PATH", path);
        shell.env("STORE", planb.store()).env("MYSQL_PWD", &password);
        shell.output().expect("bash")
    };
    let run = || run_these(&commands());

    // What is not whole does not reach the standby.
    let whole = std::fs::read(&newest).expect("a backup");
    for length in [whole.len() / 2, whole.len() - 400] {
        std::fs::write(&newest, &whole[..length]).expect("written");
        let output = run();
        assert!(!output.status.success(), "{}", text(&output));
        assert_eq!(
            target
                .sql("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'bank'")
                .trim(),
            "0"
        );
    }
    std::fs::write(&newest, &whole).expect("written");
    let output = run();
    assert!(output.status.success(), "{}", text(&output));

    let rows = "SELECT id, n, HEX(note) FROM bank.money ORDER BY id; SELECT x FROM bank.keyless ORDER BY x; SELECT id FROM bank.rich; SELECT bank.f(1)";
    assert_eq!(source.sql(rows), target.sql(rows));
    let definers = "SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'bank' UNION ALL SELECT DEFINER FROM information_schema.ROUTINES \
                    WHERE ROUTINE_SCHEMA = 'bank' UNION ALL SELECT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'bank' UNION ALL SELECT \
                    DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'bank'";
    let definers = target.sql(definers);
    assert_eq!(definers.lines().count(), 4, "{definers}");
    assert!(
        definers.lines().all(|definer| definer == format!("{admin}@%")),
        "{definers}"
    );
    assert!(target.sql("SHOW CREATE FUNCTION bank.f").contains("/* kept */"));

    target.sql("DROP DATABASE bank");
    let output = run_these(&commands_of_a_directory(&planb.store()));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(source.sql(rows), target.sql(rows));
}
