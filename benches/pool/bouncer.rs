//! A PgBouncer process in front of the test server, if `/usr/sbin/pgbouncer` is installed.
//!
//! It serves all databases of the server with one login, and limits the connections of that login.
use super::hosts::{LOGIN, PASSWORD};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tenantry::sqlx::postgres::PgConnectOptions;
use tenantry::testing::TestServer;

/// A running PgBouncer. Dropping it stops the process and removes its files.
pub(crate) struct Bouncer {
    process: Child,
    directory: PathBuf,
    pub(crate) port: u16,
}

impl Bouncer {
    /// Starts PgBouncer in this pool mode, with at most `connections` server connections, which are encrypted if the
    /// server offers it. `None` if it is not installed
    /// or does not start.
    pub(crate) fn start(server: &TestServer, mode: &str, connections: u32) -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("tenantry-pgbouncer-{mode}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).ok()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let upstream = server.admin_options();
        let (ini, users) = (directory.join("pgbouncer.ini"), directory.join("users.txt"));
        std::fs::write(&users, format!("\"{LOGIN}\" \"{PASSWORD}\"\n")).ok()?;
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\nmax_client_conn = 5000\n\
             default_pool_size = 5\nmax_user_connections = {connections}\n\
             ignore_startup_parameters = extra_float_digits,options\nserver_tls_sslmode = prefer\n",
            upstream.get_host(),
            upstream.get_port(),
            users.display()
        );
        std::fs::write(&ini, settings).ok()?;
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("-q").arg(&ini).stdout(Stdio::null()).stderr(Stdio::null());
        // PgBouncer does not run as root.
        if std::fs::metadata("/root").is_ok_and(|_| is_root()) {
            Command::new("chown").arg("-R").arg("postgres").arg(&directory).status().ok()?;
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "/usr/sbin/pgbouncer", "-q"]);
            command.arg(&ini).stdout(Stdio::null()).stderr(Stdio::null());
        }
        let mut bouncer = Self { process: command.spawn().ok()?, directory, port };
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(bouncer);
            }
            if bouncer.process.try_wait().ok()?.is_some() {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        None
    }

    /// The given options with the address of PgBouncer. The statement cache is off, because PgBouncer may give each
    /// query another server connection.
    pub(crate) fn options(&self, options: PgConnectOptions) -> PgConnectOptions {
        options.host("127.0.0.1").port(self.port).statement_cache_capacity(0).extra_float_digits(None)
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
