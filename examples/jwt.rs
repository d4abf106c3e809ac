//! JSON Web Tokens: a client with a token gets a socket, until the token expires.
//!
//! `cargo run --example jwt`, then
//! `websocat -H='Authorization: Bearer TOKEN' ws://127.0.0.1:3000/ws` with a token that it prints.

use std::time::{Duration, SystemTime};

use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    },
};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, PendingUpgrade, ProblemJson,
    TokenPolicy, Upgraded, VerifyToken,
    token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
};

const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "chat";

/// The claims that the application reads. The verifier checks `iss`, `aud` and `exp` by itself.
#[derive(Clone, Deserialize, Serialize)]
struct User {
    sub: String,
    scope: String,
}

/// An identity provider has a key set instead: `JwtKey::from_jwks`.
pub(crate) fn key(secret: &[u8]) -> Result<JwtKey, ConfigError> {
    JwtKey::hmac(JwtAlgorithm::HS256, secret)
}

pub(crate) fn app(keys: JwtKeys) -> Result<Router, ConfigError> {
    let verifier = JwtVerifier::<User>::new(keys)
        .issuer(ISSUER)
        .audience(AUDIENCE)
        .leeway(Duration::ZERO)?
        .require(|user| user.scope.split(' ').any(|scope| scope == "chat"));
    // Clients other than browsers send no Origin; these authenticate with a token and not with a
    // cookie.
    let guard = GuardLayer::new(AllowOrigin::same_origin().allow_missing())
        .allow_host(AllowHost::loopback())
        .token(TokenPolicy::bearer(verifier))?
        .reject_with(ProblemJson::new())
        .respond();
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(pending: PendingUpgrade, Claims(user): Claims<User>) {
    pending.on_upgrade(move |socket| serve(socket, user));
}

async fn serve(socket: Upgraded, user: User) {
    let ended = socket.ended();
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    tokio::select! {
        () = echo(&mut socket, user) => {}
        ended = ended => {
            let reason =
                CloseFrame { code: ended.close_code().into(), reason: ended.reason().into() };
            // A client that does not read must not delay the end of the task.
            let _ = timeout(Duration::from_secs(5), socket.close(Some(reason))).await;
        }
    }
}

async fn echo(socket: &mut WebSocketStream<Upgraded>, user: User) {
    let _ = socket.send(Message::text(format!("hello {}", user.sub))).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

/// Issues a token, as an identity provider does.
pub(crate) fn issue(secret: &[u8], sub: &str, scope: &str, lifetime: Duration) -> String {
    let expires_at = SystemTime::now() + lifetime;
    let exp =
        expires_at.duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
    let claims = serde_json::json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": sub, "scope": scope, "exp": exp });
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
    println!("for a minute: {}", issue(secret, "alice", "read chat", Duration::from_secs(60)));
    println!("may not chat: {}", issue(secret, "bob", "read", Duration::from_secs(60)));
    Ok(axum::serve(listener, app).await?)
}
