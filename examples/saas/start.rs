//! The start and the end of a web example: arguments, server, landlord, and what a killed process has left to do.
use super::data::Data;
use super::example_server::{ExampleServer, exit};
use super::{AnyError, App, MIGRATIONS};
use futures_util::StreamExt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;
use tenantry::Tenantry;
use tenantry::error::{RelocateError, ServerSetupError};
use tenantry::registry::TenantRegistry;
use tenantry::sqlx::PgPool;

const USAGE: &str = "usage: cargo run --example axum --features axum [-- [--data DIR] [--remove]]
       cargo run --example actix --features actix [-- [--data DIR] [--remove]]

  --data DIR  directory of the sealing key and of all other data that the next start continues with
  --remove    remove everything that earlier runs have created, and end

TENANTRY_DATABASE_URL=postgres://…  use the server at this URL. It names a superuser, or a role with
                                    CREATEDB and CREATEROLE.
PORT=3000, HOST_SUFFIX=localhost    where the example listens, and the host below which each tenant has a subdomain";

/// Lease of an operation. It is short, so that a restarted process soon continues what a killed one has begun.
const LEASE: Duration = Duration::from_secs(5);

struct Arguments {
    data: PathBuf,
    remove: bool,
}

impl Arguments {
    /// `None`: the usage was asked for.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, AnyError> {
        let mut arguments = Self { data: Data::default_directory(), remove: false };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--data" => arguments.data = words.next().ok_or(format!("--data needs a directory\n{USAGE}"))?.into(),
                "--remove" => arguments.remove = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument {word:?}\n{USAGE}").into()),
            }
        }
        Ok(Some(arguments))
    }
}

/// Finds or starts a server, opens or creates the landlord, and runs `serve` until it returns, which is at Ctrl-C. The
/// next start continues with the same data.
pub(crate) async fn run<F: Future<Output = Result<(), AnyError>>>(
    serve: impl FnOnce(TcpListener, App) -> F,
) -> Result<(), AnyError> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    raise_file_limit();
    let data = Data::open(arguments.data)?;
    if arguments.remove {
        return remove(data).await;
    }
    let suffix = std::env::var("HOST_SUFFIX").unwrap_or_else(|_| String::from("localhost"));
    let listener = listen()?;
    println!("Finding or starting a PostgreSQL server …");
    let server = ExampleServer::start(data.landlord()?, Some(data.server())).await?;
    println!("Server: {}", server.describe());
    println!("Data:   {}; the next start continues with it, and `-- --remove` removes it", data.path().display());
    let (tenantry, landlord) = open(&server, &data).await?;
    let app = App::new(&tenantry, suffix, listener.local_addr()?.port(), data.admin_password()?)?;
    let background = tokio::spawn(tenantry.run(std::future::pending::<()>()));
    print_addresses(&app);
    let served = serve(listener, app).await;
    close(&tenantry, landlord).await;
    background.await??;
    server.stop().await?;
    served
}

fn print_addresses(app: &App) {
    let (suffix, port) = (&app.0.suffix, app.0.port);
    println!("Sign up at   http://{suffix}:{port}/");
    println!("Administer   http://{suffix}:{port}/admin  with the password {}", app.admin_password());
    println!("Ctrl-C ends this program. Kill it in the middle of a sign-up, and the next start continues that.");
}

/// The port is taken before anything is started.
fn listen() -> Result<TcpListener, AnyError> {
    let text = std::env::var("PORT").unwrap_or_else(|_| String::from("3000"));
    let port: u16 = text.parse().map_err(|_| format!("PORT is {text:?}; set it to a port number"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener =
        listener.map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT to another port"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The facade over the landlord, with the server `main` set up at its present address.
async fn open(server: &ExampleServer, data: &Data) -> Result<(Tenantry, PgPool), AnyError> {
    let landlord = server.landlord().await?;
    tenantry::schema::install(&landlord).await?;
    let builder = Tenantry::builder(landlord.clone()).keys(data.keys()?).tenant_migrations(&MIGRATIONS).lease(LEASE);
    let tenantry = builder.build().await?;
    for operation in tenantry.operations().open().await? {
        println!("Continuing:  {} at step {}, which an earlier process has begun", operation.kind, operation.step);
    }
    for _ in 0..60 {
        if set_up(&tenantry, server).await? {
            return Ok((tenantry, landlord));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err("the server `main` is still being changed by another process; try again in a minute".into())
}

/// Sets up the server, or tells the landlord its new address: a server that the example has started listens on another
/// port each time. Returns false while the lease of a process that was killed in the middle of this has not expired.
async fn set_up(tenantry: &Tenantry, server: &ExampleServer) -> Result<bool, AnyError> {
    let admin = server.admin();
    let known = tenantry.servers().list().await?.into_iter().find(|known| known.name.as_str() == "main" && known.ready);
    match known {
        Some(main) if main.host == admin.get_host() && main.port == admin.get_port() => Ok(true),
        Some(_) => match tenantry.servers().relocate("main", admin.get_host(), admin.get_port()).await {
            Err(RelocateError::Busy { .. }) => Ok(false),
            relocated => Ok(relocated.map(|_| true)?),
        },
        None => match tenantry.servers().set_up("main", admin).prefix(server.prefix()).await {
            Err(ServerSetupError::Busy { .. }) => Ok(false),
            set_up => Ok(set_up.map(|_| true)?),
        },
    }
}

async fn close(tenantry: &Tenantry, landlord: PgPool) {
    tenantry.close().await;
    landlord.close().await;
}

/// Removes every tenant, the server's data or the example's objects on it, and the directory.
async fn remove(data: Data) -> Result<(), AnyError> {
    let server = ExampleServer::start(data.landlord()?, Some(data.server())).await?;
    println!("Server: {}", server.describe());
    if server.is_named_by_url() {
        let (tenantry, landlord) = open(&server, &data).await?;
        remove_tenants(&tenantry).await;
        close(&tenantry, landlord).await;
    }
    server.remove().await?;
    println!("Removed {}.", data.path().display());
    Ok(data.remove()?)
}

async fn remove_tenants(tenantry: &Tenantry) {
    let registry = tenantry.registry();
    let mut all = registry.all();
    while let Some(Ok(tenant)) = all.next().await {
        let purged = tokio::time::timeout(Duration::from_secs(30), tenantry.purge(&tenant).force()).await;
        let reason = match purged {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => exit::chain(&error),
            Err(_) => String::from("it took longer than 30 s"),
        };
        println!("The tenant {} could not be purged: {reason}", tenant.slug());
    }
}

/// Raises the limit of open files to the maximum. Each connection is a file, and many shells allow only 1024.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }) {
        println!("The limit of open files could not be raised: {error}");
    }
}
