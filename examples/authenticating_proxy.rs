//! Behind a proxy that authenticates users and adds a header with a token, as Cloudflare Access
//! does. A page may also send its own token, which takes precedence.
//!
//! With the token that the first command prints; `--protocol bearer,s3cr3t` is the page's own:
//!
//! ```console
//! $ cargo run --example authenticating_proxy
//! $ websocat --origin https://chat.example.com -H='Cf-Access-Jwt-Assertion: TOKEN' \
//!     ws://127.0.0.1:3000/ws
//! ```

use std::time::{Duration, SystemTime};

use axum::{Router, extract::ws::Message, response::Response, routing::any};
use serde::Deserialize;
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, ProblemJson, StaticTokens,
    TokenPolicy, TokenSource, VerifyToken,
    axum::GuardedUpgrade,
    token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
};

const ISSUER: &str = "https://example.cloudflareaccess.com";
const AUDIENCE: &str = "chat";

#[derive(Clone, Deserialize)]
struct User {
    email: String,
}

/// A proxy publishes a key set instead: `JwtKey::from_jwks`.
pub(crate) fn key(secret: &[u8]) -> Result<JwtKey, ConfigError> {
    JwtKey::hmac(JwtAlgorithm::HS256, secret)
}

pub(crate) fn app(keys: JwtKeys) -> Result<Router, ConfigError> {
    // A client that bypasses the proxy can send any header, but cannot sign a token. So a header
    // with a bare user name would not be safe.
    let by_proxy = JwtVerifier::<User>::new(keys).issuer(ISSUER).audience(AUDIENCE);
    let by_proxy =
        TokenPolicy::from_sources([TokenSource::header("Cf-Access-Jwt-Assertion")?], by_proxy)?;
    // In the page: `new WebSocket(url, ["bearer", token])`.
    let by_page = StaticTokens::new([("s3cr3t", "robot@example.com")])?
        .map_claims(|email| User { email: email.to_owned() });
    let by_page = TokenPolicy::from_sources([TokenSource::pair("bearer")?], by_page)?;
    // The proxy always adds its header. Otherwise two credentials are ambiguous, and rejected.
    let token = by_page.or(by_proxy)?.first_source_wins();

    // The proxy terminates TLS and may replace `Host`, so same-origin would compare too little.
    let guard = GuardLayer::new(AllowOrigin::public_origin("https://chat.example.com")?)
        .allow_host(AllowHost::list(["chat.example.com"])?.or(AllowHost::loopback()))
        .token(token)?
        .reject_with(ProblemJson::new());
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(upgrade: GuardedUpgrade<Claims<User>>) -> Response {
    upgrade.on_upgrade(async |mut socket, Claims(user)| {
        let _ = socket.send(Message::text(format!("hello {}", user.email))).await;
    })
}

/// Issues a token, as the proxy does.
pub(crate) fn issue(secret: &[u8], email: &str) -> String {
    let expires_at = SystemTime::now() + Duration::from_secs(60);
    let exp =
        expires_at.duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
    let claims =
        serde_json::json!({ "iss": ISSUER, "aud": [AUDIENCE], "email": email, "exp": exp });
    let key = jsonwebtoken::EncodingKey::from_secret(secret).expect("it is not empty");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)
        .expect("it is a key for HS256")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = b"an example; take 32 random bytes, and keep them out of the code";
    let app = app(JwtKeys::new([key(secret)?]))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("for a minute: {}", issue(secret, "alice@example.com"));
    Ok(axum::serve(listener, app).await?)
}
