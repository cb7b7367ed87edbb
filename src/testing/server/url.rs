//! The test server that an environment variable names by its URL.
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use super::ServerKind;
use super::error::NoServer;
use super::running::Running;
use super::session::Session;

/// Connects once to the server at `url`, to check that it can be used. It is neither configured nor stopped later.
pub(super) async fn find(variable: &'static str, url: &str) -> Result<Running, NoServer> {
    let unusable = |source| match unescaped_character(url) {
        Some((character, escape)) => NoServer::UrlCharacter { variable, character, escape, source },
        None => NoServer::Url { variable, source },
    };
    let admin = parse(url).map_err(unusable)?;
    Session::open(&admin).await.map_err(unusable)?;
    let kind = ServerKind::Url { host: admin.get_host().to_owned(), port: admin.get_port() };
    Ok(Running { kind, admin, watcher: None, kept: None })
}

/// The options in the URL. sqlx takes what a URL lacks from `PG*` variables of the process; each such variable that is
/// set is replaced by a neutral value, so that the URL alone decides which server is used and how.
fn parse(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let options = PgConnectOptions::from_str(&replace_variables(url, is_set))?;
    let names_root = ["sslrootcert=", "ssl-root-cert=", "ssl-ca="].iter().any(|name| url.contains(name));
    Ok(if is_set("PGSSLROOTCERT") && !names_root { options.ssl_root_cert_from_pem(vec![]) } else { options })
}

/// The URL with a parameter for each variable that is set and that would fill a gap of it. The parameters are the
/// first of the query, because sqlx takes the last one of a name.
fn replace_variables(url: &str, is_set: impl Fn(&str) -> bool) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let rest = address.split_once("://").map_or("", |(_, rest)| rest);
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let gaps = [
        (["PGHOST", "PGHOSTADDR"].as_slice(), "host=localhost", host.is_empty() || host.starts_with(':')),
        (&["PGPORT"], "port=5432", !host.rsplit(']').next().is_some_and(|rest| rest.contains(':'))),
        (&["PGUSER"], "user=postgres", user.is_empty()),
        (&["PGPASSWORD"], "password=", !user.contains(':')),
        (&["PGDATABASE"], "dbname=postgres", database.is_empty()),
        (&["PGSSLMODE"], "sslmode=prefer", true),
        (&["PGAPPNAME"], "application_name=tenantry", true),
    ];
    let filled = gaps.into_iter().filter(|(names, _, is_gap)| *is_gap && names.iter().any(|name| is_set(name)));
    let parameters: Vec<&str> = filled.map(|(_, parameter, _)| parameter).chain([query]).collect();
    match parameters.as_slice() {
        [""] => address.to_owned(),
        all => format!("{address}?{}", all.join("&")),
    }
}

/// The first character of the user name or password that ends this part of the URL although it belongs to it, and the
/// escape to write instead (RFC 3986, section 3.2.1). In a URL without such a mistake, the user name and the password
/// end at the only `@`.
fn unescaped_character(url: &str) -> Option<(char, &'static str)> {
    let (_, rest) = url.split_once("://")?;
    let (user_and_password, _) = rest.rsplit_once('@')?;
    let escape = |c| match c {
        '@' => Some("%40"),
        '#' => Some("%23"),
        '/' => Some("%2F"),
        '?' => Some("%3F"),
        '[' => Some("%5B"),
        ']' => Some("%5D"),
        _ => None,
    };
    user_and_password.chars().find_map(|c| escape(c).map(|escape| (c, escape)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_would_fill_a_gap_of_the_url_are_replaced() {
        let all = |url| replace_variables(url, |_| true);
        let full = "postgres://ada:secret@[::1]:5433/x";
        assert_eq!(all(full), format!("{full}?sslmode=prefer&application_name=tenantry&"));
        assert_eq!(
            all("postgres:///?host=/run"),
            "postgres:///?host=localhost&port=5432&user=postgres&password=&dbname=postgres&sslmode=prefer\
             &application_name=tenantry&host=/run"
        );
        assert_eq!(replace_variables("postgres://db", |name| name == "PGUSER"), "postgres://db?user=postgres&");
        assert_eq!(replace_variables("postgres://db", |_| false), "postgres://db");
    }

    #[test]
    fn unescaped_character_is_found_only_in_user_and_password() {
        assert_eq!(unescaped_character("postgres://ada:p@ss@db/x"), Some(('@', "%40")));
        assert_eq!(unescaped_character("postgres://ada:p#ss@db/x"), Some(('#', "%23")));
        assert_eq!(unescaped_character("postgres://ada:p%40%23@db:5432/x?sslmode=require#y"), None);
        assert_eq!(unescaped_character("postgres://db/x"), None);
        assert_eq!(unescaped_character("nonsense"), None);
    }
}
