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
    let admin = PgConnectOptions::from_str(url).map_err(unusable)?;
    Session::open(&admin).await.map_err(unusable)?;
    let kind = ServerKind::Url { host: admin.get_host().to_owned(), port: admin.get_port() };
    Ok(Running { kind, admin, watcher: None })
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
    fn unescaped_character_is_found_only_in_user_and_password() {
        assert_eq!(unescaped_character("postgres://ada:p@ss@db/x"), Some(('@', "%40")));
        assert_eq!(unescaped_character("postgres://ada:p#ss@db/x"), Some(('#', "%23")));
        assert_eq!(unescaped_character("postgres://ada:p%40%23@db:5432/x?sslmode=require#y"), None);
        assert_eq!(unescaped_character("postgres://db/x"), None);
        assert_eq!(unescaped_character("nonsense"), None);
    }
}
