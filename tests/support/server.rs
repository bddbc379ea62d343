//! Real MySQL and MariaDB servers: one of a test's own in about two seconds, or the shared ones.
//!
//! A server never outlives its test: it is killed when dropped, and by the kernel when the test process
//! ends in any other way.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::net::TcpListener;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to answer or to stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    MySql,
    MariaDb,
}

impl Flavor {
    pub const ALL: [Self; 2] = [Self::MySql, Self::MariaDb];

    /// The name of the lab's directory, of its fixtures, and of what tests print.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }

    fn program(self, mysql: &str, mariadb: &str) -> PathBuf {
        let name = match self {
            Self::MySql => mysql,
            Self::MariaDb => mariadb,
        };
        let path = lab_dir().join(self.name()).join("bin").join(name);
        assert!(
            path.is_file(),
            "{} is missing: run scripts/lab setup {}",
            path.display(),
            self.name()
        );
        path
    }

    fn shared_port_variable(self) -> &'static str {
        match self {
            Self::MySql => "PLANB_LAB_MYSQL_PORT",
            Self::MariaDb => "PLANB_LAB_MARIADB_PORT",
        }
    }
}

/// Where `scripts/lab` keeps its parts.
pub fn lab_dir() -> PathBuf {
    let dir =
        std::env::var_os("PLANB_LAB").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".lab"), PathBuf::from);
    assert!(dir.is_dir(), "{} is missing: run scripts/lab setup", dir.display());
    dir
}

/// A schema name no other test uses, for tests on shared servers.
pub fn unique_schema(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "{prefix}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A server that answers as root without a password, whoever started it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub flavor: Flavor,
    pub port: u16,
    /// Known only for a server of one's own.
    pub socket: Option<PathBuf>,
}

/// A server that all tests of a run use at the same time: keep to schemas of [`unique_schema`].
pub type Shared = Endpoint;

impl Endpoint {
    /// Runs SQL as root through the flavour's own client and returns rows as lines, columns separated
    /// by tabs, raw. Panics with what the server said if a statement fails.
    pub fn sql(&self, text: &str) -> String {
        self.try_sql(text)
            .unwrap_or_else(|error| panic!("{} refused: {error}\nthe SQL was: {:.2000}", self.flavor.name(), text))
    }

    /// As [`Self::sql`], with the client's stderr as the error.
    pub fn try_sql(&self, text: &str) -> Result<String, String> {
        feed(self.client().args(["-N", "-B", "--raw", "--comments"]), text)
    }

    /// Runs SQL as another account. TCP, so that the account's host is that of a remote client.
    pub fn sql_as(&self, user: &str, password: &str, text: &str) -> Result<String, String> {
        let mut client = self.client_as(user);
        client.env("MYSQL_PWD", password);
        feed(client.args(["-N", "-B", "--raw", "--comments"]), text)
    }

    /// Rows of one or more statements, fields unescaped. NULL reads as `NULL`. Statements that fail are
    /// passed over; the second value is what the client said about them.
    pub fn rows_and_errors(&self, text: &str) -> (Vec<Vec<String>>, String) {
        let output = self
            .client()
            .args(["-N", "-B", "--force", "--comments"])
            .stdin(script(text))
            .output()
            .unwrap_or_else(|error| panic!("cannot run the client: {error}"));
        let rows = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.split('\t').map(unescape).collect())
            .collect();
        (rows, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Rows of one or more statements, fields unescaped. NULL reads as `NULL`.
    pub fn rows(&self, text: &str) -> Vec<Vec<String>> {
        let (rows, errors) = self.rows_and_errors(text);
        assert!(!errors.contains("ERROR"), "{} refused: {errors}", self.flavor.name());
        rows
    }

    /// The command-line client as root, with nothing said yet about what it should do.
    pub fn client(&self) -> Command {
        let mut client = self.bare_client("root");
        match &self.socket {
            Some(socket) => client.arg("--socket").arg(socket),
            None => client.args(["--protocol=tcp", "--host=127.0.0.1", &format!("--port={}", self.port)]),
        };
        client
    }

    /// The command-line client as another account, over TCP. Its password goes into `MYSQL_PWD`.
    pub fn client_as(&self, user: &str) -> Command {
        let mut client = self.bare_client(user);
        client.args(["--protocol=tcp", "--host=127.0.0.1", &format!("--port={}", self.port)]);
        client
    }

    fn bare_client(&self, user: &str) -> Command {
        let mut client = Command::new(self.flavor.program("mysql", "mariadb"));
        client.args([
            "--no-defaults",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
        ]);
        client
            .arg(format!("--user={user}"))
            .env_remove("MYSQL_PWD")
            .env_remove("MYSQL_HISTFILE");
        client
    }

    /// `gzip -dc PATH | mysql`, as somebody without PlanB would do it. Panics if either side fails.
    pub fn load_gzip(&self, path: &Path) {
        self.try_load_gzip(path)
            .unwrap_or_else(|error| panic!("loading {} failed: {error}", path.display()));
    }

    /// As [`Self::load_gzip`]; the error is what gzip and the client said.
    pub fn try_load_gzip(&self, path: &Path) -> Result<(), String> {
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run gzip: {error}"))?;
        let unpacked = gzip.stdout.take().ok_or("gzip has no stdout")?;
        let client = self
            .client()
            // Older clients and MariaDB's drop comments from routine bodies unless told not to.
            .arg("--comments")
            .stdin(unpacked)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| format!("cannot run the client: {error}"))?;
        let gzip = gzip
            .wait_with_output()
            .map_err(|error| format!("gzip was lost: {error}"))?;
        // A client that gives up closes the pipe, and gzip dies of that: report the client first.
        for (name, output) in [("the client", &client), ("gzip", &gzip)] {
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{name} failed ({}): {said}", output.status));
            }
        }
        Ok(())
    }

    /// Loads a plain SQL file, as root. Panics if a statement fails.
    pub fn load_file(&self, path: &Path) {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let output = self
            .client()
            .arg("--comments")
            .stdin(file)
            .output()
            .unwrap_or_else(|error| panic!("cannot run the client: {error}"));
        assert!(
            output.status.success(),
            "{} refused {}: {}",
            self.flavor.name(),
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn dump_tool(&self) -> PathBuf {
        self.flavor.program("mysqldump", "mariadb-dump")
    }

    pub fn binlog_tool(&self) -> PathBuf {
        self.flavor.program("mysqlbinlog", "mariadb-binlog")
    }

    /// For example `MySQL 9.7.4`, as the lab recorded it.
    pub fn version(&self) -> String {
        let path = lab_dir().join(self.flavor.name()).join("version");
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run scripts/lab setup", path.display()))
            .trim()
            .to_owned()
    }
}

/// A server of one's own, made from the lab's template.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    socket: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
    dir: TempDir,
}

impl Deref for Server {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Server {
    /// Starts a fresh, empty server. Later arguments win over the lab's, which are in `server.cnf`.
    pub fn start(flavor: Flavor, extra_args: &[&str]) -> Self {
        let runs = lab_dir().join("run");
        fs::create_dir_all(&runs).unwrap_or_else(|error| panic!("{}: {error}", runs.display()));
        let dir = tempfile::Builder::new()
            .prefix(&format!("test-{}-", flavor.name()))
            .tempdir_in(&runs)
            .unwrap_or_else(|error| panic!("no directory in {}: {error}", runs.display()));
        // scripts/lab removes what processes that no longer live have left here.
        fs::write(dir.path().join("owner"), std::process::id().to_string())
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", dir.path().display()));

        // MySQL can choose lower_case_table_names only while a data directory is made.
        let lowercase = flavor == Flavor::MySql
            && extra_args
                .iter()
                .any(|arg| arg.replace('-', "_").ends_with("lower_case_table_names=1"));
        let template = lab_dir()
            .join(flavor.name())
            .join(if lowercase { "template-lowercase" } else { "template" });
        assert!(
            template.is_dir(),
            "{} is missing: run scripts/lab setup {}",
            template.display(),
            flavor.name()
        );
        super::run(
            Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .arg(&template)
                .arg(dir.path().join("data")),
        );

        // The kernel takes 107 bytes for the path of a socket.
        let mut socket = dir.path().join("sock");
        if socket.as_os_str().len() > 100 {
            socket = std::env::temp_dir().join(format!("{}.sock", unique_schema("planb")));
        }
        let mut server = Self {
            endpoint: Endpoint {
                flavor,
                port: 0,
                socket: Some(socket.clone()),
            },
            socket,
            args: extra_args.iter().map(|&arg| arg.to_owned()).collect(),
            child: None,
            dir,
        };
        for _ in 0..5 {
            server.endpoint.port = free_port();
            match server.launch(&[]) {
                Ok(()) => return server,
                // Between looking for a free port and taking it, somebody else may have had it.
                Err(log) if log.to_lowercase().contains("address already in use") => {}
                Err(log) => panic!("{} did not start; the end of its log:\n{log}", flavor.name()),
            }
        }
        panic!("{} found no free port in five attempts", flavor.name());
    }

    /// The server that `scripts/lab run` started for all tests.
    pub fn shared(flavor: Flavor) -> Shared {
        let variable = flavor.shared_port_variable();
        let port = super::from_lab_run(variable);
        let port = port
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is not a port: {port}"));
        Endpoint {
            flavor,
            port,
            socket: None,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The server's error log so far.
    pub fn log(&self) -> String {
        fs::read(self.data_dir().join("error.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child
            .as_ref()
            .map_or_else(|| panic!("the server is not running"), Child::id)
    }

    /// SIGKILL: what a power cut looks like to its clients.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already, and that is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A clean shutdown. The data stays, and [`Self::restart`] takes it up again.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        super::run(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &child.id().to_string()]));
        let deadline = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "{} did not stop; the end of its log:\n{}",
                    self.flavor.name(),
                    self.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server if it runs, and starts it on the same data and port, with the arguments of its
    /// start followed by `extra_args`.
    pub fn restart(&mut self, extra_args: &[&str]) {
        self.stop();
        if let Err(log) = self.launch(extra_args) {
            panic!("{} did not start again; the end of its log:\n{log}", self.flavor.name());
        }
    }

    /// Starts the program and waits until it answers. The error is the end of its log.
    fn launch(&mut self, extra_args: &[&str]) -> Result<(), String> {
        let flavor = self.flavor;
        let program = flavor.program("mysqld", "mariadbd");
        let cnf = lab_dir().join(flavor.name()).join("server.cnf");
        // The log starts anew, so that its end is about this start.
        let _ = fs::remove_file(self.data_dir().join("error.log"));
        let out_path = self.dir.path().join("out");
        let out = File::create(&out_path).map_err(|error| error.to_string())?;
        let err = out.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg(format!("--defaults-file={}", cnf.display()))
            .arg(format!("--datadir={}", self.data_dir().display()))
            // A starting server clears its tmpdir of temporary tables, other servers' too: to each its own.
            .arg(format!("--tmpdir={}", self.dir.path().display()))
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--port={}", self.endpoint.port))
            .arg(format!("--pid-file={}", self.dir.path().join("server.pid").display()))
            .args(&self.args)
            .args(extra_args)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        in_this_network(&mut command);
        self.child = Some(spawn_for_life(command));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client().args(["-e", "SELECT 1"]).output();
            match answer {
                Ok(output) if output.status.success() => return Ok(()),
                // A test has given root a password: refusing us is an answer too.
                Ok(output) if String::from_utf8_lossy(&output.stderr).contains("ERROR 1045") => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => panic!("cannot run the client: {error}"),
            }
            let ended = self
                .child
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                self.kill();
                let said = fs::read(&out_path).unwrap_or_default();
                return Err(format!("{}{}", String::from_utf8_lossy(&said), self.log_tail()));
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // Elsewhere than in the directory only if that one's path is too long.
        let _ = fs::remove_file(&self.socket);
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .unwrap_or_else(|error| panic!("no free port: {error}"))
        .port()
}

/// Another thread spawns it, and a thread may have a network of its own.
fn in_this_network(command: &mut Command) {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    let network = |path: &str| fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (own, usual) = (network("/proc/thread-self/ns/net"), network("/proc/self/ns/net"));
    let number = |file: &fs::File| file.metadata().map(|metadata| metadata.ino()).ok();
    if number(&own) == number(&usual) {
        return;
    }
    // SAFETY: between fork and exec only a call that takes numbers, one of them of a descriptor that is open as long as the command.
    #[expect(unsafe_code, reason = "the standard library knows no namespaces")]
    unsafe {
        command.pre_exec(move || match libc::setns(own.as_raw_fd(), libc::CLONE_NEWNET) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Spawns a child that the kernel kills when this process ends. That promise is tied to the *thread* that
/// spawns, and a test's thread ends long before the process, so one thread that never ends does it for all.
fn spawn_for_life(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("server-parent".into())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    // Nobody waits for the answer if the test's thread has panicked meanwhile.
                    let _ = reply.send(command.spawn());
                }
            })
            .unwrap_or_else(|error| panic!("no thread to start servers from: {error}"));
        Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send((command, reply))
        .unwrap_or_else(|_| panic!("the thread that starts servers is gone"));
    answer
        .recv()
        .unwrap_or_else(|_| panic!("the thread that starts servers is gone"))
        .unwrap_or_else(|error| panic!("cannot run setpriv (package util-linux): {error}"))
}

/// SQL as a client's stdin. A file rather than a pipe: no size makes the two wait for each other.
fn script(text: &str) -> File {
    let made = tempfile::tempfile().and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    });
    made.unwrap_or_else(|error| panic!("no temporary file: {error}"))
}

fn feed(client: &mut Command, text: &str) -> Result<String, String> {
    let output = client
        .stdin(script(text))
        .output()
        .map_err(|error| format!("cannot run the client: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Takes back what the client's batch mode escapes: `\t`, `\n`, `\0` and the backslash.
fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('0') => plain.push('\0'),
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    plain
}
