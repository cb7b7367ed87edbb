//! Serves one request of the setup routes, the same for axum and actix-web.
//!
//! For each request the adapters call [`SetupRoutes::read_head`] and [`SetupRoutes::handle`], and convert the response.
//!
//! Invariants:
//! - A GET consumes nothing, so mail scanners and link previews do no harm. A POST does the work once.
//! - A request looks its token up once. The operation of a POST then claims the token, which checks it again.
//! - A request counts as an attempt of its client before its token is looked up, and as an attempt of its tenant after.
use super::html::style_sheet;
use super::request::{BodyError, Method, SetupHead, SetupTarget};
use super::{RETRY_AFTER, SetupPage, SetupRoutes, pages};
use crate::error::{StoreError, chain};
use crate::setup_link::{FoundLink, NormalizedPassword, SetupLinkError};
use crate::store::tokens::{TokenEventKind, TokenPurpose};
use crate::web::WebResponse;
use secrecy::SecretString;
use std::{future::Future, net::IpAddr, time::Duration};
use zeroize::Zeroize;

/// Maximum size of a posted form, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Maximum time to receive a posted form.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

impl SetupRoutes {
    /// Serves a request. `read_body` reads its body up to this number of bytes; it is called only for a POST to a link.
    pub(in crate::web) async fn handle<B, F>(&self, head: SetupHead, read_body: impl FnOnce(usize) -> F) -> WebResponse
    where
        B: AsRef<[u8]>,
        F: Future<Output = Result<B, BodyError>>,
    {
        let SetupHead { target, method, client } = head;
        let (purpose, token, body) = match (target, method) {
            (SetupTarget::StyleSheet, Method::Get) => return style_sheet(),
            (SetupTarget::StyleSheet, _) => return pages::method_not_allowed("GET,HEAD"),
            (SetupTarget::Link { .. }, Method::Other) => return pages::method_not_allowed("GET,HEAD,POST"),
            (SetupTarget::Link { purpose, token }, Method::Get) => (purpose, token, None),
            (SetupTarget::Link { purpose, token }, Method::Post) => {
                let received = tokio::time::timeout(BODY_TIMEOUT, read_body(MAX_BODY_BYTES)).await;
                (purpose, token, Some(received.unwrap_or(Err(BodyError::Timeout))))
            }
        };
        let Ok(purpose) = purpose.parse::<TokenPurpose>() else { return self.not_valid_page() };
        match &body {
            None => self.show(&purpose, &token, client).await,
            // Respond without any await: after a body that it cannot parse, actix-web does not wait for the handler.
            Some(Err(BodyError::Broken)) => self.page(400, &SetupPage::Later { wait: 1 }),
            Some(body) => self.submit(&purpose, &token, client, body.as_ref().map(B::as_ref)).await,
        }
    }

    /// Serves a GET: the page of a valid link.
    async fn show(&self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>) -> WebResponse {
        match self.admit(purpose, token, client).await {
            Ok(link) => {
                self.0.tenantry.note_link(token, Some(TokenEventKind::Shown), client);
                self.form_page(&link, 200, None)
            }
            Err(page) => page,
        }
    }

    /// Serves a POST: follows the link.
    async fn submit(
        &self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>, body: Result<&[u8], &BodyError>,
    ) -> WebResponse {
        let link = match self.admit(purpose, token, client).await {
            Ok(link) => link,
            Err(page) => return page,
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                let problem = "The form was too large or did not arrive completely. Please try again.";
                return self.form_page(&link, error.status(), Some(problem));
            }
        };
        match self.follow(&link, body).await {
            Ok(page) => {
                self.0.tenantry.note_link(token, Some(TokenEventKind::Followed), client);
                page
            }
            Err(error) => self.failure_page(&link, &error),
        }
    }

    /// Does the work of a link that was admitted.
    async fn follow(&self, link: &FoundLink<'_>, body: &[u8]) -> Result<WebResponse, SetupLinkError> {
        if link.issued.purpose == TokenPurpose::password() {
            let password = NormalizedPassword::new(&parse_password(body))?;
            let tenant = self.0.tenantry.follow_found_password_link(link, &password).await?;
            Ok(self.page(200, &SetupPage::Done { tenant: &tenant, next: &self.0.next }))
        } else {
            let form = self.0.tenantry.follow_found_credentials_link(link).await?;
            Ok(pages::with_security_headers(WebResponse::see_other(form.expose_path())))
        }
    }

    /// Counts the attempt of the client, finds the link, and counts the attempt of the link's tenant. `Err` is the page
    /// to send: 404 for a link that is not valid, 429 after too many attempts of the client or of the tenant, and 503
    /// if the landlord does not answer.
    async fn admit<'a>(
        &self, purpose: &TokenPurpose, token: &'a str, client: Option<IpAddr>,
    ) -> Result<FoundLink<'a>, WebResponse> {
        let (attempts, max) = (self.0.tenantry.link_attempts(), self.0.max_attempts);
        if let Some(Err(wait)) = client.map(|client| attempts.by_client.attempt(client, max)) {
            return Err(self.try_later_page(429, wait));
        }
        let is_built_in = *purpose == TokenPurpose::credentials() || *purpose == TokenPurpose::password();
        let unavailable = |error: StoreError| {
            let error = chain(&error);
            tracing::warn!(%error, "could not look up a setup link in the landlord; the user is asked to try again");
            self.try_later_page(503, RETRY_AFTER)
        };
        let issued = self.0.tenantry.tokens().look_up(purpose, token).await.map_err(unavailable)?;
        let Some(issued) = issued.filter(|_| is_built_in) else {
            self.0.tenantry.note_link(token, None, client);
            return Err(self.not_valid_page());
        };
        if let Err(wait) = attempts.by_tenant.attempt(issued.tenant, max) {
            return Err(self.try_later_page(429, wait));
        }
        let tenant = self.0.tenantry.registry().find(issued.tenant.into()).await.map_err(unavailable)?;
        tenant.map(|tenant| FoundLink { issued, tenant, text: token }).ok_or_else(|| self.not_valid_page())
    }
}

/// The field `password` of a posted form. A missing field is an empty password, which the admin store refuses.
fn parse_password(body: &[u8]) -> SecretString {
    let found = form_urlencoded::parse(body).find(|(name, _)| name == "password");
    let mut text = found.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let password = SecretString::from(text.as_str());
    text.zeroize();
    password
}
