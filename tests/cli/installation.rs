//! A landlord database, and runs of the program over it.
use sqlx::ConnectOptions;
use std::process::{Command, Output};
use tenantry::testing::TestServer;
use tenantry::testing::server::TestDatabase;

/// Variables of the developer's own shell that must not take part.
const CLEARED: [&str; 8] = [
    "TENANTRY_LANDLORD_URL",
    "TENANTRY_KEYS",
    "TENANTRY_KEY_FILE",
    "TENANTRY_ADMIN_URL",
    "TENANTRY_MIGRATIONS",
    "TENANTRY_APP_ACCESS",
    "TENANTRY_ENV_FILE",
    "PGOPTIONS",
];

/// A key for tests.
pub(crate) const KEYS: &str = "k1:5lmSk0ZpX8G1Yt0Uc2c3yR8b0Zq7l5C1cJwq8H1dO4k=";

/// An empty landlord, and a server for tenants.
pub(crate) struct Installation {
    pub(crate) landlord: TestDatabase,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Installation {
    /// A landlord without the schema.
    pub(crate) async fn empty() -> Self {
        let server = TestServer::shared().await.unwrap();
        let landlord = server.create_database("landlord").await.unwrap();
        let variables = vec![
            ("TENANTRY_LANDLORD_URL", landlord.options().to_url_lossy().to_string()),
            ("TENANTRY_ADMIN_URL", server.admin_options().to_url_lossy().to_string()),
            ("TENANTRY_KEYS", KEYS.to_owned()),
        ];
        Self { landlord, variables }
    }
    /// A landlord with the schema and the server `main`.
    pub(crate) async fn start() -> Self {
        let installation = Self::empty().await;
        installation.run(&["init", "--prefix", installation.prefix()]).succeed();
        installation
    }
    /// Prefix of the roles on the server.
    pub(crate) fn prefix(&self) -> &str {
        self.landlord.name()
    }
    /// The program with these arguments, over this landlord.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
    /// Runs the program without a terminal.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::new(self.command(arguments))
    }
}

/// The program with these arguments and none of the variables that configure it.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.args(arguments).stdin(std::process::Stdio::null());
    CLEARED.iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// What one run has printed, and its exit code.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn new(mut command: Command) -> Self {
        Self::of(command.output().unwrap())
    }
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
    /// Fails the test unless the run has this exit code.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
    #[track_caller]
    pub(crate) fn succeed(self) -> Self {
        self.exit(0)
    }
    /// The JSON object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}
