//! Who a user is. A login is a session cookie: a signed token, which no server stores. With it a
//! page gets a one-time ticket for a room, and with the ticket a socket. So no cookie opens a
//! socket, and no long-lived secret is in a URL.

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, ORIGIN, RETRY_AFTER},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_ws_guard::{
    BoxVerifier, Ended, Origin, Revocations, StaticTokens, Token, TokenIdentity, VerifyToken,
    token::{
        jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
        ticket::TicketStore,
    },
};

use crate::Chat;

/// Of a session.
pub(crate) const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// The tickets of a user in half a minute.
const QUOTA: u32 = 30;

/// The claims of the cookie.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Login {
    #[serde(rename = "sub")]
    user: String,
    #[serde(rename = "jti")]
    session: String,
    exp: u64,
}

/// The claims of a ticket.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Member {
    pub(crate) user: String,
    pub(crate) room: String,
    pub(crate) session: String,
    /// In seconds since 1970.
    pub(crate) expires: u64,
}

#[derive(Clone)]
pub(crate) struct Logins {
    invitation: StaticTokens<()>,
    key: EncodingKey,
    verifier: BoxVerifier<Login>,
    revocations: Revocations,
    is_secure: bool,
}

impl Logins {
    pub(crate) fn new(
        invitation: &str,
        secret: Option<&str>,
        revocations: Revocations,
        is_secure: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let secret = match secret {
            Some(secret) => secret.as_bytes().to_vec(),
            None => {
                let mut random = vec![0; 32];
                getrandom::fill(&mut random)?;
                random
            }
        };
        let keys = JwtKeys::new([JwtKey::hmac(JwtAlgorithm::HS256, &secret)?]);
        let verifier = JwtVerifier::<Login>::new(keys)
            .leeway(Duration::ZERO)?
            .unless_revoked(&revocations, |login| TokenIdentity::new().id(&login.session));
        Ok(Self {
            invitation: StaticTokens::new([(invitation, ())])?,
            key: EncodingKey::from_secret(&secret)?,
            verifier: verifier.boxed(),
            revocations,
            is_secure,
        })
    }

    /// With TLS a cookie that no other host can set, and that is never sent in the clear.
    fn cookie(&self, value: String) -> Cookie<'static> {
        Cookie::build((self.cookie_name(), value))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Strict)
            .secure(self.is_secure)
            .build()
    }

    const fn cookie_name(&self) -> &'static str {
        if self.is_secure { "__Host-session" } else { "session" }
    }
}

/// The user of an ordinary request, by the cookie.
impl<S: Clone + Sync> FromRequestParts<Chat<S>> for Login {
    type Rejection = Failure;

    async fn from_request_parts(request: &mut Parts, chat: &Chat<S>) -> Result<Self, Failure> {
        let cookies = CookieJar::from_headers(&request.headers);
        let cookie = cookies.get(chat.logins.cookie_name()).ok_or(Failure::LoggedOut)?;
        let verified = chat.logins.verifier.verify(Token::new(cookie.value()), request).await;
        match verified {
            Ok(verified) => Ok(verified.claims().clone()),
            Err(rejection) if rejection.kind().status().is_server_error() => {
                Err(Failure::unavailable(rejection))
            }
            Err(_) => Err(Failure::LoggedOut),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    user: String,
    invitation: String,
}

/// Replace the invitation by what your users have: a password and its hash, or OpenID Connect.
pub(crate) async fn login<S>(
    State(Chat { logins, .. }): State<Chat<S>>,
    cookies: CookieJar,
    request: Parts,
    Json(credentials): Json<Credentials>,
) -> Result<CookieJar, Failure> {
    if !is_name(&credentials.user) {
        return Err(Failure::Invalid("a name has 1 to 32 letters, digits, `-` and `_`"));
    }
    // In constant time.
    let invitation = logins.invitation.verify(Token::new(credentials.invitation), &request);
    invitation.await.map_err(|_| Failure::Invitation)?;
    let (high, low) = (getrandom::u64(), getrandom::u64());
    let session = format!("{:016x}{:016x}", high?, low?);
    let exp = SystemTime::now() + LIFETIME;
    let exp = exp.duration_since(UNIX_EPOCH).map_err(Failure::unavailable)?.as_secs();
    tracing::info!(user = credentials.user, "logged in");
    let login = Login { user: credentials.user, session, exp };
    let token = encode(&Header::default(), &login, &logins.key).map_err(Failure::unavailable)?;
    Ok(cookies.add(logins.cookie(token)))
}

/// Ends this session, on all servers. The user's sockets of other sessions come back with a new
/// ticket.
pub(crate) async fn logout<S>(
    State(Chat { logins, sessions, .. }): State<Chat<S>>,
    cookies: CookieJar,
    login: Login,
) -> Result<CookieJar, Failure> {
    // First, so that no socket opens after the others have ended.
    logins.revocations.revoke_token(&login.session).await.map_err(Failure::unavailable)?;
    sessions.end(&login.user, Ended::Revoked).await.map_err(Failure::unavailable)?;
    tracing::info!(user = login.user, "logged out");
    Ok(cookies.remove(logins.cookie(String::new())))
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    room: String,
}

/// Check here who may enter a room.
pub(crate) async fn ticket<S: TicketStore + Clone>(
    State(Chat { tickets, .. }): State<Chat<S>>,
    login: Login,
    headers: HeaderMap,
    Json(Asked { room }): Json<Asked>,
) -> Result<Response, Failure> {
    if !is_name(&room) {
        return Err(Failure::Invalid("a room has 1 to 32 letters, digits, `-` and `_`"));
    }
    // Only the page that asks can redeem the ticket.
    let origin = headers.get(ORIGIN).and_then(|origin| Origin::parse(origin.as_bytes()).ok());
    let origin = origin.ok_or(Failure::Invalid("a browser names its origin"))?;
    let user = login.user.clone();
    let member = Member { user: login.user, room, session: login.session, expires: login.exp };
    let issued = tickets.quota(&user, QUOTA).issue_to_origin(&member, &origin).await;
    let ticket = issued.map_err(|error| match error.retry_after() {
        Some(delay) => Failure::TooMany(delay),
        None => Failure::unavailable(error),
    })?;
    let body = Json(json!({ "ticket": ticket.expose(), "user": user }));
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], body).into_response())
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=32).contains(&name.len()) && name.bytes().all(allowed)
}

/// The response to a request that fails, as JSON.
pub(crate) enum Failure {
    LoggedOut,
    Invitation,
    Invalid(&'static str),
    TooMany(Duration),
    Unavailable,
}

impl Failure {
    /// The cause is for the operator.
    fn unavailable(cause: impl Error + 'static) -> Self {
        tracing::error!(error = &cause as &(dyn Error + 'static), "unavailable");
        Self::Unavailable
    }
}

impl From<getrandom::Error> for Failure {
    fn from(error: getrandom::Error) -> Self {
        Self::unavailable(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::LoggedOut => (StatusCode::UNAUTHORIZED, "log in first"),
            Self::Invitation => (StatusCode::FORBIDDEN, "the invitation is wrong"),
            Self::Invalid(reason) => (StatusCode::BAD_REQUEST, reason),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "not possible at the moment"),
        };
        let mut response = (status, Json(json!({ "error": error }))).into_response();
        if let Self::TooMany(delay) = self {
            response.headers_mut().insert(RETRY_AFTER, delay.as_secs().into());
        }
        response
    }
}
