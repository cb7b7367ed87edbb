//! Checks that a test server writes its messages in the language that was asked for.
use super::error::PrepareError;
use super::session::Session;

/// Fails unless the server's messages are translated. Reading `lc_messages` is not enough: a server without the
/// translations accepts the setting and keeps writing English.
pub(super) async fn check(session: &mut Session, locale: &str) -> Result<(), PrepareError> {
    let translated = provoke_error(session).await?;
    session.run("SET lc_messages = 'C'".to_owned()).await.map_err(PrepareError::Language)?;
    if provoke_error(session).await? == translated {
        return Err(PrepareError::Untranslated { locale: locale.to_owned() });
    }
    Ok(())
}

/// Divides by zero and returns the text of the server's error.
async fn provoke_error(session: &mut Session) -> Result<String, PrepareError> {
    match session.run("SELECT 1 / 0".to_owned()).await {
        Err(sqlx::Error::Database(error)) => Ok(error.message().to_owned()),
        Err(error) => Err(PrepareError::Language(error)),
        Ok(()) => Ok(String::new()),
    }
}
