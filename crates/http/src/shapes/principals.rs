//! Keys, sessions, and who is disabled.

use utoipa::ToSchema;

/// An API key, without what its owner presents.
#[derive(ToSchema)]
pub(crate) struct ApiKey {
    /// The part of it that may be shown.
    id: String,
    /// The tenant that it opens.
    tenant: String,
    /// What it is for, for people.
    name: String,
    /// What it may act as.
    roles: Vec<String>,
    /// Whether it opens something.
    status: ApiKeyStatus,
    /// Who made it.
    by: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created: String,
    /// From when on it opens nothing, if it is meant to end.
    #[schema(required, format = DateTime)]
    ends: Option<String>,
    /// Who took it back, if somebody has.
    #[schema(required)]
    revoked: Option<Revocation>,
}

/// Whether a key opens something.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum ApiKeyStatus {
    /// It does.
    Open,
    /// Its time is up.
    Ended,
    /// It was taken back.
    Revoked,
}

/// Who took a key back.
#[derive(ToSchema)]
pub(crate) struct Revocation {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who.
    by: String,
    /// Why.
    reason: String,
}

/// An API key that was just made.
#[derive(ToSchema)]
pub(crate) struct CreatedApiKey {
    /// What its owner presents: here and nowhere else ever.
    key: String,
    /// The key.
    #[serde(flatten)]
    shown: ApiKey,
}

/// A session of a browser.
#[derive(ToSchema)]
pub(crate) struct Session {
    /// Whose it is.
    principal: String,
    /// In which tenant.
    tenant: String,
    /// What they may act as.
    roles: Vec<String>,
    /// When it ends.
    #[schema(format = DateTime)]
    ends: String,
}

/// Somebody who is disabled, or was until now.
#[derive(ToSchema)]
pub(crate) struct Principal {
    /// A key by its id, a user as `ISSUER:SUBJECT`.
    principal: String,
    /// Of which tenant.
    tenant: String,
    /// Whether it is denied everything.
    disabled: bool,
    /// Since when, if it is.
    #[schema(nullable = false, format = DateTime)]
    since: Option<String>,
    /// By whom, if it is.
    #[schema(nullable = false)]
    by: Option<String>,
    /// Why, if it is.
    #[schema(nullable = false)]
    reason: Option<String>,
}
