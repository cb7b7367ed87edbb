//! Another process of the application: it asks all the time, and says what became of it.
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

pub(crate) struct Load {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

/// What a process says at its end.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Said {
    pub(crate) asked: u64,
    /// Statements that were in flight when the process was stopped, and failed.
    pub(crate) lost: u64,
    /// All others that failed, or brought another tenant's row.
    pub(crate) failed: u64,
    pub(crate) errors: Vec<String>,
}

impl Load {
    pub(crate) fn start(task: &load::Task) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(load::TASK, serde_json::to_string(task).unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut load = Self { child, out };
        load.goes_on();
        load
    }
    /// Waits for its next sign of life: each says that all tenants have answered.
    pub(crate) fn goes_on(&mut self) {
        // What is in the pipe may be old; the second one is not.
        for _ in 0..2 {
            self.out.read_line(&mut String::new()).unwrap();
        }
        // And what it asks then is asked.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    pub(crate) fn end(&mut self) -> Said {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap();
        serde_json::from_str(rest.lines().last().unwrap()).unwrap()
    }
}

pub(crate) mod load {
    use super::{Read, Said, Write};
    use serde::{Deserialize, Serialize};
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use tenantry::vault::LocalKeyring;
    use tenantry::{Tenantry, sqlx};

    pub(crate) const TASK: &str = "TENANTRY_BENCH_LOAD";
    /// A process that does nothing for so long was stopped.
    const PAUSE: Duration = Duration::from_millis(60);

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

    pub(crate) fn run(task: &Task) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = runtime.block_on(ask(task));
        println!("{}", serde_json::to_string(&said).unwrap());
    }

    #[derive(Default)]
    struct Seen {
        asked: u64,
        failures: Vec<(Instant, Instant, String)>,
        pauses: Vec<(Instant, Instant)>,
    }

    impl Seen {
        fn note(&mut self, begun: Instant, answer: Result<(), String>) {
            self.asked += 1;
            self.failures.extend(answer.err().map(|error| (begun, Instant::now(), error)));
        }
    }

    async fn ask(task: &Task) -> Said {
        let options = PgConnectOptions::new_without_pgpass().host(&task.host).port(task.port);
        let options = options.username("bench_load").password("of the benchmark alone").database(&task.database);
        let landlord = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
        let keys = LocalKeyring::from_text(&task.keys).unwrap();
        let tenantry = Tenantry::builder(landlord).keys(keys).max_connections(12).build().await.unwrap();
        let background = tokio::spawn(tenantry.run(std::future::pending::<()>()));
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..task.tenants {
            tasks.spawn(one(tenantry.clone(), slug(n), stop.clone(), seen.clone()));
        }
        tasks.spawn(watch(stop.clone(), seen.clone()));
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut vec![])).await.unwrap().unwrap();
        stop.store(true, Relaxed);
        while tasks.join_next().await.is_some() {}
        tenantry.close().await;
        background.await.unwrap().unwrap();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        judged(seen)
    }

    async fn one(tenantry: Tenantry, slug: String, stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
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
            seen.lock().unwrap().note(begun, answer);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Says that it lives, and notices when it did not.
    async fn watch(stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
        let mut last = Instant::now();
        while !stop.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = Instant::now();
            if now - last > PAUSE {
                seen.lock().unwrap().pauses.push((last, now));
            }
            last = now;
            println!(".");
            std::io::stdout().flush().unwrap();
        }
    }

    /// In flight: begun before a pause, and ended after it.
    fn judged(seen: Seen) -> Said {
        let in_flight = |(begun, ended, _): &&(Instant, Instant, String)| {
            seen.pauses.iter().any(|(from, to)| *begun <= *from + Duration::from_millis(6) && *ended >= *to - PAUSE / 2)
        };
        let lost = seen.failures.iter().filter(in_flight).count() as u64;
        let others = || seen.failures.iter().filter(|f| !in_flight(f));
        let errors = others().map(|(_, _, e)| e.clone()).collect();
        Said { asked: seen.asked, lost, failed: others().count() as u64, errors }
    }
}
