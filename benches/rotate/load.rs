//! A second process of the application, which queries all tenants without a pause and reports the results.
//!
//! The benchmark starts its own executable again with [`load::TASK`] set. The child prints a dot while it is active,
//! and its results as JSON when its standard input closes.
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

/// The child process, as the benchmark controls it.
pub(crate) struct LoadProcess {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

/// The results that the child prints at its end.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct LoadResult {
    /// Number of queries.
    pub(crate) asked: u64,
    /// Failed queries that were in flight while the signal STOP had paused the process.
    pub(crate) lost: u64,
    /// All other failed queries, and those that returned another tenant's row.
    pub(crate) failed: u64,
    /// Errors of the queries that `failed` counts.
    pub(crate) errors: Vec<String>,
}

impl LoadProcess {
    /// Starts the child, and waits until it queries.
    pub(crate) fn start(task: &load::Task) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(load::TASK, serde_json::to_string(task).unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut load = Self { child, out };
        load.wait_until_active();
        load
    }
    /// Waits until the child prints a new dot and has had time to query all tenants.
    pub(crate) fn wait_until_active(&mut self) {
        // The child may have printed the first line before it was stopped. The second one is new.
        for _ in 0..2 {
            self.out.read_line(&mut String::new()).unwrap();
        }
        // The child sleeps 2 ms between queries, so every tenant is queried in this time.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    /// Sends a signal, such as STOP, to the child.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "signal {name} could not be sent to the child process");
    }
    /// Ends the child and returns its results.
    pub(crate) fn end(&mut self) -> LoadResult {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap();
        serde_json::from_str(rest.lines().last().unwrap()).unwrap()
    }
}

/// What the child process does.
pub(crate) mod load {
    use super::{LoadResult, Read, Write};
    use serde::{Deserialize, Serialize};
    use sqlx::postgres::PgPoolOptions;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use tenantry::testing::connect_options;
    use tenantry::vault::LocalKeyring;
    use tenantry::{Tenantry, sqlx};

    /// Environment variable with the [`Task`] as JSON. It makes this executable the child.
    pub(crate) const TASK: &str = "TENANTRY_BENCH_LOAD";
    /// If the process does nothing for this long, it was stopped.
    const PAUSE: Duration = Duration::from_millis(60);

    /// Where the landlord is, how many tenants there are, and the keys.
    #[derive(Serialize, Deserialize)]
    pub(crate) struct Task {
        pub(crate) host: String,
        pub(crate) port: u16,
        pub(crate) database: String,
        pub(crate) tenants: usize,
        pub(crate) keys: String,
    }
    impl Task {
        pub(crate) fn from_env() -> Option<Self> {
            std::env::var(TASK).ok().map(|text| serde_json::from_str(&text).unwrap())
        }
    }

    pub(crate) fn slug(n: usize) -> String {
        format!("tenant-{n}")
    }

    /// Entry point of the child.
    pub(crate) fn run(task: &Task) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(query_until_stdin_closes(task));
        println!("{}", serde_json::to_string(&result).unwrap());
    }

    /// The results so far.
    #[derive(Default)]
    struct Measured {
        asked: u64,
        /// Begin, end and error of each failed query.
        failures: Vec<(Instant, Instant, String)>,
        /// Begin and end of each time in which the process was stopped.
        pauses: Vec<(Instant, Instant)>,
    }

    impl Measured {
        fn add_query(&mut self, begun: Instant, answer: Result<(), String>) {
            self.asked += 1;
            self.failures.extend(answer.err().map(|error| (begun, Instant::now(), error)));
        }
    }

    async fn query_until_stdin_closes(task: &Task) -> LoadResult {
        let password = "of the benchmark alone";
        let options = connect_options(&task.host, task.port, "bench_load", password, &task.database);
        let landlord = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
        let keys = LocalKeyring::from_text(&task.keys).unwrap();
        let tenantry = Tenantry::builder(landlord).keys(keys).max_connections(12).build().await.unwrap();
        let background = tokio::spawn(tenantry.run(std::future::pending::<()>()));
        let (stop, measured) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Measured::default())));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..task.tenants {
            tasks.spawn(query_in_loop(tenantry.clone(), slug(n), stop.clone(), measured.clone()));
        }
        tasks.spawn(report_activity(stop.clone(), measured.clone()));
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut vec![])).await.unwrap().unwrap();
        stop.store(true, Relaxed);
        while tasks.join_next().await.is_some() {}
        tenantry.close().await;
        background.await.unwrap().unwrap();
        let measured = std::mem::take(&mut *measured.lock().unwrap());
        classify(measured)
    }

    /// Queries one tenant until `stop` is set, and checks that the answer comes from its own database.
    async fn query_in_loop(tenantry: Tenantry, slug: String, stop: Arc<AtomicBool>, measured: Arc<Mutex<Measured>>) {
        let tenant =
            tenantry.registry().find((&*slug).into()).await.unwrap().unwrap().id().as_uuid().simple().to_string();
        while !stop.load(Relaxed) {
            let begun = Instant::now();
            let answer = async {
                let db = tenantry.resolve(&*slug).await.map_err(|e| e.to_string())?;
                let database: String = sqlx::query_scalar("SELECT current_database()::text")
                    .fetch_one(&db)
                    .await
                    .map_err(|e| e.to_string())?;
                if database.contains(&tenant) { Ok(()) } else { Err(format!("ANOTHER TENANT'S ROW: {database}")) }
            };
            let answer: Result<(), String> = answer.await;
            measured.lock().unwrap().add_query(begun, answer);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Prints a dot every 5 ms, and records the times in which the process was stopped.
    async fn report_activity(stop: Arc<AtomicBool>, measured: Arc<Mutex<Measured>>) {
        let mut last = Instant::now();
        while !stop.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = Instant::now();
            if now - last > PAUSE {
                measured.lock().unwrap().pauses.push((last, now));
            }
            last = now;
            println!(".");
            std::io::stdout().flush().unwrap();
        }
    }

    /// Separates the failed queries that were in flight during a pause: they began before it and ended after it.
    fn classify(measured: Measured) -> LoadResult {
        let in_flight = |(begun, ended, _): &&(Instant, Instant, String)| {
            measured
                .pauses
                .iter()
                .any(|(from, to)| *begun <= *from + Duration::from_millis(6) && *ended >= *to - PAUSE / 2)
        };
        let lost = measured.failures.iter().filter(in_flight).count() as u64;
        let others = || measured.failures.iter().filter(|f| !in_flight(f));
        let errors = others().map(|(_, _, e)| e.clone()).collect();
        LoadResult { asked: measured.asked, lost, failed: others().count() as u64, errors }
    }
}
