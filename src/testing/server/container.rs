use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use testcontainers::core::{ContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError};

use super::ServerKind;
use super::error::ContainerError;
use super::running::Running;
use super::session::{connects, random_password, random_suffix};
use super::watcher::Watcher;

/// Starts a container of the named image, else of one of the usual two.
pub(super) async fn start(image: Option<&str>, arguments: &[String]) -> Result<Running, ContainerError> {
    docker(&["version", "--format", "{{.Server.Version}}"], Duration::from_secs(10))
        .await
        .map_err(|reason| ContainerError::NoDocker { reason })?;
    let image = available(image).await?;
    let name = format!("tenantry-test-{}", random_suffix());
    let mut watcher = watch(&name).map_err(ContainerError::Watcher)?;
    let password = random_password();
    let started = request(&image, &name, &password, arguments).start().await;
    // From here on the container is there or never will be: the watcher need not wait for it.
    watcher.tell("created").map_err(ContainerError::Watcher)?;
    let failed = |reason: String| ContainerError::Start { image: image.clone(), reason };
    let container = started.map_err(|error| failed(error.to_string()))?;
    let admin = options(&container, &password).await.map_err(|error| failed(error.to_string()))?;
    // The watcher removes it. The crate's own Drop wants a runtime, and a `static` server outlives them all.
    std::mem::forget(container);
    connects(&admin, Duration::from_secs(30)).await.map_err(|error| failed(error.to_string()))?;
    Ok(Running { kind: ServerKind::Container { name, image }, admin, watcher: Some(watcher) })
}

/// What the container has written so far, on both streams.
pub(super) async fn log(name: &str) -> Result<String, String> {
    let output = output(&["logs", name], Duration::from_secs(60)).await?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn available(named: Option<&str>) -> Result<String, ContainerError> {
    let wanted: &[&str] = match &named {
        Some(image) => &[image],
        None => &[BUILT_IMAGE, OFFICIAL_IMAGE],
    };
    for image in wanted {
        if docker(&["image", "inspect", image], Duration::from_secs(10)).await.is_ok() {
            return Ok((*image).to_owned());
        }
    }
    let image = named.unwrap_or(OFFICIAL_IMAGE).to_owned();
    match docker(&["pull", "--quiet", &image], Duration::from_secs(60)).await {
        Ok(_) => Ok(image),
        Err(reason) => Err(ContainerError::NoImage { image, reason }),
    }
}

fn request(image: &str, name: &str, password: &str, arguments: &[String]) -> ContainerRequest<GenericImage> {
    let (repository, tag) = match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (image, "latest"),
    };
    let ready = "database system is ready to accept connections";
    GenericImage::new(repository, tag)
        .with_exposed_port(PORT)
        .with_wait_for(WaitFor::message_on_stdout(ready))
        .with_wait_for(WaitFor::message_on_stderr(ready))
        .with_container_name(name)
        .with_label("tenantry.test", std::process::id().to_string())
        .with_env_var("POSTGRES_PASSWORD", password)
        // The official image would let everybody in through its socket.
        .with_env_var("POSTGRES_INITDB_ARGS", "--auth=scram-sha-256")
        .with_startup_timeout(Duration::from_secs(120))
        .with_cmd(arguments)
}

async fn options(
    container: &ContainerAsync<GenericImage>, password: &str,
) -> Result<PgConnectOptions, TestcontainersError> {
    let host = container.get_host().await?.to_string();
    let port = container.get_host_port_ipv4(PORT).await?;
    let options = PgConnectOptions::new_without_pgpass().host(&host).port(port);
    Ok(options.username("postgres").database("postgres").password(password))
}

fn watch(name: &str) -> std::io::Result<Watcher> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "tenantry-docker", name]);
    Watcher::spawn(command)
}

/// Runs the `docker` command; its standard output, or what it complained of.
async fn docker(arguments: &[&str], limit: Duration) -> Result<String, String> {
    let output = output(arguments, limit).await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

async fn output(arguments: &[&str], limit: Duration) -> Result<Output, String> {
    let mut command = tokio::process::Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.map_err(|error| format!("the docker command: {error}")),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

const BUILT_IMAGE: &str = "tenantry-postgres:17";
const OFFICIAL_IMAGE: &str = "postgres:17";
const PORT: ContainerPort = ContainerPort::Tcp(5432);
const SCRIPT: &str = include_str!("container.sh");
