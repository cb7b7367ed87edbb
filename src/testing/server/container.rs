//! A PostgreSQL server in a Docker container, with a random password.
//!
//! The script `container.sh` removes the container when this process ends. It runs before the container is created, so
//! a process that is killed in the middle of the creation leaves nothing either.
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use testcontainers::core::{ContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError};

use super::ServerKind;
use super::error::ContainerError;
use super::kept::KeptData;
use super::running::Running;
use super::session::{Deadline, random_password, random_suffix, wait_until_accepting};
use super::watcher::Watcher;
use crate::testing::connect_options;

/// Starts a container of this image, or of a default image if none is given.
pub(super) async fn start(
    image: Option<&str>, kept: Option<&KeptData>, arguments: &[String],
) -> Result<Running, ContainerError> {
    run_docker(&["version", "--format", "{{.Server.Version}}"], Duration::from_secs(10))
        .await
        .map_err(|reason| ContainerError::NoDocker { reason })?;
    let image = find_image(image).await?;
    let start_error = |reason: String| ContainerError::Start { image: image.clone(), reason };
    let volume = match kept {
        Some(kept) => Some(prepare_volume(kept).await.map_err(start_error)?),
        None => None,
    };
    let name = format!("tenantry-test-{}", random_suffix());
    let watcher_error = |error: std::io::Error| ContainerError::Watcher { reason: error.to_string() };
    let mut watcher = spawn_watcher(&name).map_err(watcher_error)?;
    let password = kept.map_or_else(random_password, |kept| kept.password.clone());
    let started = request(&image, &name, &password, volume.as_deref(), arguments).start().await;
    // The creation has succeeded or failed. The watcher no longer has to wait for a container that may still appear.
    watcher.send_line("created").map_err(watcher_error)?;
    let container = started.map_err(|error| start_error(error.to_string()))?;
    let admin = admin_options(&container, &password).await.map_err(|error| start_error(error.to_string()))?;
    // The watcher removes the container. The Drop of testcontainers needs a Tokio runtime, and a `static` server has
    // none at the end of the process.
    std::mem::forget(container);
    wait_until_accepting(&admin, Duration::from_secs(30)).await.map_err(|error| start_error(error.to_string()))?;
    if let Some(kept) = kept {
        kept.record_container().map_err(|error| start_error(error.to_string()))?;
    }
    Ok(Running { kind: ServerKind::Container { name, image }, admin, watcher: Some(watcher), kept: None })
}

/// Removes the container that used the volume before: two servers would destroy its data. A volume whose server never
/// answered is removed too, because its creation was interrupted. Returns the name of the volume.
async fn prepare_volume(kept: &KeptData) -> Result<String, String> {
    let volume = kept.volume().map_err(|error| error.to_string())?;
    let filter = format!("volume={volume}");
    let deadline = Deadline::new(Duration::from_secs(60));
    loop {
        let users = run_docker(&["ps", "--all", "--quiet", "--filter", &filter], Duration::from_secs(10)).await?;
        if users.is_empty() {
            break;
        }
        for container in users.split_whitespace() {
            // Fails if the watcher of the earlier process is removing the container at the same time.
            let _ = run_docker(&["rm", "--force", container], Duration::from_secs(60)).await;
        }
        if !deadline.sleep().await {
            return Err(format!(
                "the container {users} of an earlier process could not be removed; remove it and try again"
            ));
        }
    }
    if kept.backend().is_none() {
        remove_volume(&volume).await?;
    }
    Ok(volume)
}

/// Removes a volume. An absent one is `Ok`.
pub(super) async fn remove_volume(volume: &str) -> Result<(), String> {
    run_docker(&["volume", "rm", "--force", volume], Duration::from_secs(60)).await.map(drop)
}

/// Reads the container's output so far: standard output, then standard error.
pub(super) async fn read_log(name: &str) -> Result<String, String> {
    let output = execute_docker(&["logs", name], Duration::from_secs(60)).await?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Returns an image that exists locally. Pulls one, within 60 s, if none of them does.
async fn find_image(named: Option<&str>) -> Result<String, ContainerError> {
    let wanted: &[&str] = match &named {
        Some(image) => &[image],
        None => &[BUILT_IMAGE, OFFICIAL_IMAGE],
    };
    for image in wanted {
        if run_docker(&["image", "inspect", image], Duration::from_secs(10)).await.is_ok() {
            return Ok((*image).to_owned());
        }
    }
    let image = named.unwrap_or(OFFICIAL_IMAGE).to_owned();
    match run_docker(&["pull", "--quiet", &image], Duration::from_secs(60)).await {
        Ok(_) => Ok(image),
        Err(reason) => Err(ContainerError::NoImage { image, reason }),
    }
}

fn request(
    image: &str, name: &str, password: &str, volume: Option<&str>, arguments: &[String],
) -> ContainerRequest<GenericImage> {
    let (repository, tag) = match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (image, "latest"),
    };
    let image =
        GenericImage::new(repository, tag).with_exposed_port(PORT).with_wait_for(WaitFor::message_on_stderr(READY));
    let request = match volume {
        Some(volume) => image.with_mount(Mount::volume_mount(volume, DATA)).with_env_var("PGDATA", DATA),
        None => image.with_wait_for(WaitFor::message_on_stdout(READY)).into(),
    };
    request
        .with_container_name(name)
        .with_label("tenantry.test", std::process::id().to_string())
        .with_env_var("POSTGRES_PASSWORD", password)
        // By default the official image accepts every login through its Unix socket.
        .with_env_var("POSTGRES_INITDB_ARGS", "--auth=scram-sha-256")
        .with_startup_timeout(Duration::from_secs(120))
        .with_cmd(arguments)
}

async fn admin_options(
    container: &ContainerAsync<GenericImage>, password: &str,
) -> Result<PgConnectOptions, TestcontainersError> {
    let host = container.get_host().await?.to_string();
    let port = container.get_host_port_ipv4(PORT).await?;
    Ok(connect_options(&host, port, "postgres", password, "postgres"))
}

fn spawn_watcher(name: &str) -> std::io::Result<Watcher> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "tenantry-docker", name]);
    Watcher::spawn(command)
}

/// Runs the `docker` command. Returns its standard output, or its standard error if it fails.
async fn run_docker(arguments: &[&str], limit: Duration) -> Result<String, String> {
    let output = execute_docker(arguments, limit).await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

async fn execute_docker(arguments: &[&str], limit: Duration) -> Result<Output, String> {
    let mut command = tokio::process::Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.map_err(|error| format!("the docker command cannot be run: {error}")),
        Err(_) => Err(format!("the docker command did not end within {} s", limit.as_secs())),
    }
}

const BUILT_IMAGE: &str = "tenantry-postgres:17";
const OFFICIAL_IMAGE: &str = "postgres:17";
const PORT: ContainerPort = ContainerPort::Tcp(5432);
/// The official image writes this to standard output when it has created a cluster, and to standard error when the server
/// accepts connections. With the data of an earlier start it does only the latter.
const READY: &str = "database system is ready to accept connections";
/// The data directory for a kept volume.
const DATA: &str = "/var/lib/postgresql/data";
const SCRIPT: &str = include_str!("container.sh");
