//! The process that is killed. It says at which step it is, and goes on when the driver has heard it.
use super::saga::Saga;
use super::{Anything, lane};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::io::{BufRead, Write};
use std::time::Duration;
use tenantry::sqlx;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Where the task stands: in the environment, since it holds a password and keys.
const TASK: &str = "TENANTRY_TORTURE_TASK";
/// What `pg_stat_activity` shows of the child's landlord session.
pub(crate) const CHILD: &str = "torture child";

/// What a child is to do.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) saga: Saga,
    pub(crate) slug: String,
    pub(crate) server: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) keys: String,
    /// The near server, for a set-up.
    pub(crate) near: u16,
}

impl Task {
    /// `None`: this process is no child.
    pub(crate) fn from_env() -> Result<Option<Self>, Anything> {
        std::env::var(TASK).ok().map(|text| Ok(serde_json::from_str(&text)?)).transpose()
    }
    fn dba(&self) -> PgConnectOptions {
        lane::dba(self.near, &self.password)
    }
    pub(crate) fn hand_to(&self, command: &mut tokio::process::Command) -> Result<(), Anything> {
        command.env(TASK, serde_json::to_string(self)?);
        Ok(())
    }
}

/// Runs the task to its end.
pub(crate) fn run_child(task: Task) -> Result<(), Anything> {
    let subscriber = tracing_subscriber::registry().with(Steps);
    tracing::subscriber::set_global_default(subscriber)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(work(&task));
    say(&match &ended {
        Ok(()) => String::from("done"),
        Err(error) => format!("failed {}", chain(&**error).replace('\n', " ")),
    });
    Ok(())
}

async fn work(task: &Task) -> Result<(), Anything> {
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(task.port);
    let options = options.username(&task.user).password(&task.password).database(&task.database);
    // One connection, so that each run of a saga sends its statements in the same order.
    let pool =
        PgPoolOptions::new().max_connections(1).test_before_acquire(false).acquire_timeout(Duration::from_secs(5));
    let landlord = pool.connect_lazy_with(options.application_name(CHILD));
    let tenantry = lane::builder(landlord, &task.keys, lane::Program::of(task.saga))?.build().await?;
    match task.saga {
        Saga::ServerSetup => lane::set_up(&tenantry, &task.slug, task.dba()).await?,
        saga => saga.run(&tenantry, &task.slug, &task.server).await?,
    }
    tenantry.close().await;
    Ok(())
}

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A driver that is gone hears nothing.
    let _ = writeln!(out, "<torture> {line}").and_then(|()| out.flush());
}

/// Tells the driver of each step before it begins, and waits for its word.
struct Steps;
impl<S: tracing::Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let undo = match seen.message.as_str() {
            "step begins" => "",
            "undo begins" => "undo ",
            _ => return,
        };
        say(&format!("step {undo}{}", seen.step));
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    step: String,
}
impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            self.step = value.into();
        }
    }
}
