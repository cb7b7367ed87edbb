//! Reads a tenant's database as the application: whether its login works, its migrations and its sequences.
use crate::cluster::pg::observe::read_sequences;
use crate::cluster::pg::{catalog, session};
use crate::cluster::{DOCTOR, MigrationStatus, read_ledger};
use crate::directory::TenantDatabase;
use crate::doctor::view::{Expected, LoginView, Seen};
use crate::error::chain;
use crate::pool::connect::connect_options;
use crate::{rt, sqlstate};
use secrecy::SecretString;
use sqlx::{ConnectOptions, PgConnection};

/// Settings of the session in addition to those of the entry. It gives up soon, and it can only read.
const SETTINGS: [(&str, &str); 3] =
    [("statement_timeout", "10s"), ("lock_timeout", "2s"), ("default_transaction_read_only", "on")];

/// Logs in with the password of this entry, whose address is that of its server. `Hidden` says why that was not possible
/// for another reason than the login itself.
pub(in crate::doctor) async fn observe(
    entry: TenantDatabase, password: &SecretString, expected: &Expected,
) -> Seen<LoginView> {
    let options = connect_options(&entry, password).application_name(DOCTOR).options(SETTINGS);
    let mut opened = match rt::poll_batched(options.connect()).await {
        Ok(opened) => opened,
        Err(error) if sqlstate::is_refused_login(&error) => {
            let code = sqlstate::code(&error).unwrap_or_default().into_owned();
            return Seen::Read(LoginView::Refused(code));
        }
        Err(error) => return Seen::Hidden(chain(&error)),
    };
    let view = read(&mut opened, expected).await;
    session::close(opened).await;
    view.map_or_else(Seen::Hidden, Seen::Read)
}

async fn read(session: &mut PgConnection, expected: &Expected) -> Result<LoginView, String> {
    let (_, acts_as, _) = catalog::read_identity(session).await.map_err(|error| chain(&error))?;
    let migrations = match expected.migrations {
        Some(migrator) => {
            let ledger = read_ledger(migrator, session).await.map_err(|error| chain(&error))?;
            Some(MigrationStatus::compare(migrator, &ledger))
        }
        None => None,
    };
    let sequences = match read_sequences(session).await {
        Ok(sequences) => Seen::Read(sequences),
        Err(error) => Seen::Hidden(chain(&error)),
    };
    Ok(LoginView::Entered { acts_as, migrations, sequences })
}
