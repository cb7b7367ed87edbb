//! The child process, which the driver kills.
//!
//! The child runs one [`Task`]. Before each step it writes the step's name to stdout and waits for a line on stdin. So
//! the driver knows the step of every statement that the proxies see.
use super::saga::Saga;
use super::{AnyError, lane};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::io::{BufRead, Write};
use std::time::Duration;
use tenantry::sqlx;
use tenantry::testing::connect_options;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Environment variable with the task. Not an argument, because the task contains a password and keys.
const TASK: &str = "TENANTRY_TORTURE_TASK";
/// `application_name` of the child's landlord session.
pub(crate) const CHILD: &str = "torture child";

/// The saga that a child runs, and how it reaches the servers and opens secrets.
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
    /// Port of the proxy in front of the near server, for a set-up.
    pub(crate) near: u16,
}

impl Task {
    /// The task of this process. `None` if this process is not a child.
    pub(crate) fn from_env() -> Result<Option<Self>, AnyError> {
        std::env::var(TASK).ok().map(|text| Ok(serde_json::from_str(&text)?)).transpose()
    }
    fn dba_options(&self) -> PgConnectOptions {
        lane::dba_options(self.near, &self.password)
    }
    pub(crate) fn pass_to(&self, command: &mut tokio::process::Command) -> Result<(), AnyError> {
        command.env(TASK, serde_json::to_string(self)?);
        Ok(())
    }
}

/// Runs the task, and reports its result to the driver.
pub(crate) fn run_child(task: Task) -> Result<(), AnyError> {
    let subscriber = tracing_subscriber::registry().with(StepReporter);
    tracing::subscriber::set_global_default(subscriber)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(run_task(&task));
    send_line(&match &result {
        Ok(()) => String::from("done"),
        Err(error) => format!("failed {}", format_chain(&**error).replace('\n', " ")),
    });
    Ok(())
}

async fn run_task(task: &Task) -> Result<(), AnyError> {
    let options = connect_options("127.0.0.1", task.port, &task.user, &task.password, &task.database);
    // With one connection, each run of a saga sends its statements in the same order.
    let pool =
        PgPoolOptions::new().max_connections(1).test_before_acquire(false).acquire_timeout(Duration::from_secs(5));
    let landlord = pool.connect_lazy_with(options.application_name(CHILD));
    let tenantry = lane::builder(landlord, &task.keys, lane::Program::for_saga(task.saga))?.build().await?;
    match task.saga {
        Saga::ServerSetup => lane::set_up(&tenantry, &task.slug, task.dba_options()).await?,
        saga => saga.run(&tenantry, &task.slug, &task.server).await?,
    }
    tenantry.close().await;
    Ok(())
}

/// The error with all its sources.
pub(crate) fn format_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn send_line(line: &str) {
    let mut out = std::io::stdout().lock();
    // An error means that the driver has ended. Then the result does not matter.
    let _ = writeln!(out, "<torture> {line}").and_then(|()| out.flush());
}

/// Reports each step to the driver before the step begins, and waits until the driver has read it.
struct StepReporter;
impl<S: tracing::Subscriber> Layer<S> for StepReporter {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let undo = match fields.message.as_str() {
            "step begins" => "",
            "undo begins" => "undo ",
            _ => return,
        };
        send_line(&format!("step {undo}{}", fields.step));
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    }
}

#[derive(Default)]
struct EventFields {
    message: String,
    step: String,
}
impl Visit for EventFields {
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
