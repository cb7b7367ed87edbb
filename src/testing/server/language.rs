use super::error::PrepareError;
use super::session::Session;

/// That the server's messages are translated. The setting alone does not tell: a server that lacks the translations
/// takes it and goes on in English.
pub(super) async fn check(session: &mut Session, locale: &str) -> Result<(), PrepareError> {
    let theirs = complaint(session).await?;
    session.run("SET lc_messages = 'C'".to_owned()).await.map_err(PrepareError::Language)?;
    if complaint(session).await? == theirs {
        return Err(PrepareError::Untranslated { locale: locale.to_owned() });
    }
    Ok(())
}

/// What it says of an error that every server makes.
async fn complaint(session: &mut Session) -> Result<String, PrepareError> {
    match session.run("SELECT 1 / 0".to_owned()).await {
        Err(sqlx::Error::Database(error)) => Ok(error.message().to_owned()),
        Err(error) => Err(PrepareError::Language(error)),
        Ok(()) => Ok(String::new()),
    }
}
