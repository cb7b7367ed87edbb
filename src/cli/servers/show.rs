//! `servers show` and the table of all servers.
use crate::cli::output::{Output, Table};
use crate::operations::servers::Server;

pub(super) fn show(server: &Server) -> Output {
    let facts = Table::facts()
        .fact("Server", server.name.to_string())
        .fact("Address", format!("{}:{}", server.host, server.port))
        .fact("Encryption", server.tls.to_string())
        .fact("State", describe_state(server))
        .fact("Tenants", format!("{} of {}", server.tenants, server.capacity))
        .fact("Connections", format!("at most {}, over all nodes", server.max_connections))
        .fact("Weight", server.weight.to_string());
    let output = Output::new().table(facts).field("server", server);
    output.next(format!("doctor --server {}", server.name))
}

fn describe_state(server: &Server) -> &'static str {
    match (server.ready, server.draining) {
        (false, _) => "setting up",
        (true, true) => "draining",
        (true, false) => "ready",
    }
}

/// The servers, also for `status`.
pub(in crate::cli) fn table_of_servers(servers: &[Server]) -> Table {
    let rows = servers.iter().map(|server| {
        let address = format!("{}:{}", server.host, server.port);
        let tenants = format!("{}/{}", server.tenants, server.capacity);
        [server.name.to_string(), address, describe_state(server).into(), tenants, server.max_connections.to_string()]
    });
    Table::new(["SERVER", "ADDRESS", "STATE", "TENANTS", "CONNECTIONS"]).rows(rows).or_empty("No server is set up.")
}
