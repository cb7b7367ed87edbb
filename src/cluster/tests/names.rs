//! Names that need quoting, in all statements of a tenant's life.
use super::{Step, Tenant, sql};
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::{AppAccess, Generation};
use crate::names::TenantNames;

/// Names with quotes, spaces, backslashes, dollars, percent signs, Unicode, keywords and upper case.
const NAMES: [&str; 6] = ["it's", "say \"hi\"; --", "back\\slash $1 %s :x", "Größe ½ 租户", "SELECT", "_*?|&<>"];

#[tokio::test]
async fn names_that_need_quoting_work_in_every_statement() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    for (name, access) in NAMES.into_iter().zip([AppAccess::App, AppAccess::Owner].into_iter().cycle()) {
        let tenant = Tenant::new(&it, name, access)?;
        run_whole_life(&tenant).await.map_err(|e| format!("{name:?}, {access}: {e}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn longest_names_do_not_collide() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let length = TenantNames::MAX_DATABASE - it.prefix().len();
    let tenant = Tenant::new(&it, &"x".repeat(length), AppAccess::App)?;
    let longest = tenant.names.login(Generation(9_999_999_999))?;
    assert_eq!(longest.as_str().len(), 62);
    run_whole_life(&tenant).await
}

/// Provisions, rotates, refuses, admits and removes the tenant; fails if anything is left.
async fn run_whole_life(tenant: &Tenant<'_>) -> Outcome {
    let mut locked = tenant.locked_session().await?;
    tenant.run(&mut locked, &Step::ALL).await?;
    let mut app = tenant.app().await?;
    sql(&mut app, "INSERT INTO notes (note) VALUES ('x')").await?;
    sql(&mut app, "SET ROLE NONE").await?;
    sql(&mut app, "SELECT lo_create(0)").await?;
    let second = tenant.create_login(&mut locked, 2).await?;
    locked.refuse(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
    locked.admit(&tenant.login, &tenant.names.roles.app).await?;
    let new_owner = crate::cluster::pg::ddl::acts_as(&tenant.names.roles, tenant.access);
    locked.remove_login(&tenant.names, &tenant.login, new_owner).await?;
    let _connected = tenant.app_as(&second).await?;
    locked.remove(&tenant.names, &[tenant.login.clone(), second]).await?;
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}
