//! JSON Web Tokens of an OpenID Connect issuer that rotates its keys.
//!
//! `cargo run --example jwt_rotation -- http://127.0.0.1:8080/realms/master` for a Keycloak on this
//! machine, then `websocat -H='Authorization: Bearer TOKEN' ws://127.0.0.1:3000/ws`.
//!
//! This client speaks plain HTTP, to keep the example short. Whoever can change a response on its
//! way can sign tokens, so fetch the keys over `https`: with reqwest, or with hyper-rustls.

use std::{error::Error, time::Duration};

use axum::{Router, routing::any};
use bytes::Bytes;
use futures_util::SinkExt;
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, PendingUpgrade, ProblemJson,
    TokenPolicy,
    token::jwt::{
        JwtAlgorithm::{ES256, EdDSA, RS256},
        JwtKey, JwtKeys, JwtRefresh, JwtVerifier,
    },
};

type BoxError = Box<dyn Error + Send + Sync>;
type Http = Client<HttpConnector, Empty<Bytes>>;

#[derive(Clone, Deserialize)]
struct User {
    sub: String,
}

/// The metadata of OpenID Connect Discovery 1.0, as far as they are needed here.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Fetches the keys now and then. A new key is found when the first token names it.
pub(crate) fn keys(issuer: &str, settings: JwtRefresh) -> JwtKeys {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let issuer = issuer.to_owned();
    let fetch = move || fetch_keys(http.clone(), issuer.clone());
    JwtKeys::refresh(fetch, settings)
}

async fn fetch_keys(http: Http, issuer: String) -> Result<Vec<JwtKey>, BoxError> {
    let url = format!("{issuer}/.well-known/openid-configuration");
    let metadata: Metadata = get(&http, &url).await?;
    // OpenID Connect Discovery 1.0, 4.3.
    if metadata.issuer != issuer {
        return Err(format!("the issuer calls itself `{}`", metadata.issuer).into());
    }
    let keys: serde_json::Value = get(&http, &metadata.jwks_uri).await?;
    Ok(JwtKey::from_jwks(&keys.to_string(), &[RS256, ES256, EdDSA])?)
}

async fn get<T: DeserializeOwned>(http: &Http, url: &str) -> Result<T, BoxError> {
    let response = http.get(url.parse()?).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("{url} responded with {}", response.status()).into());
    }
    let body = Limited::new(response.into_body(), 1024 * 1024).collect().await?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

pub(crate) fn app(issuer: &str, keys: JwtKeys) -> Result<Router, ConfigError> {
    let verifier = JwtVerifier::<User>::new(keys).issuer(issuer).audience("account");
    let guard = GuardLayer::new(AllowOrigin::same_origin().allow_missing())
        .allow_host(AllowHost::loopback())
        .token(TokenPolicy::bearer(verifier))?
        .reject_with(ProblemJson::new())
        .respond();
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(pending: PendingUpgrade, Claims(user): Claims<User>) {
    pending.on_upgrade(async move |socket| {
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        let _ = socket.send(Message::text(format!("hello {}", user.sub))).await;
        let _ = socket.close(None).await;
    });
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let issuer = std::env::args().nth(1).ok_or("usage: jwt_rotation ISSUER")?;
    tracing_subscriber::fmt().init();
    let keys = keys(&issuer, JwtRefresh::new().name(&issuer));
    timeout(Duration::from_secs(10), keys.ready()).await.map_err(|_| {
        let error = keys.last_error().map_or_else(String::new, |error| error.to_string());
        format!("there are no keys after 10 seconds; {error}")
    })?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app(&issuer, keys)?).await?)
}
