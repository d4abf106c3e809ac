//! A server on the user's machine, for the user's programs and not for pages: it listens on a
//! loopback address, and generates a token at each start.
//!
//! `cargo run --example local_server`, then
//! `websocat -H='Authorization: Bearer TOKEN' ws://127.0.0.1:3000/ws` with the printed token.

use std::{error::Error, net::SocketAddr};

use axum::{
    Router,
    extract::ws::Message,
    response::Response,
    routing::{any, get},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConfigError, GuardLayer, ProblemJson, RequestCheckLayer, StaticTokens,
    TokenPolicy, axum::GuardedUpgrade,
};

/// The origin check rejects pages, the host check rejects pages whose name leads to this machine
/// (DNS rebinding), and the token check rejects other users of this machine.
pub(crate) fn guard(token: &str) -> Result<GuardLayer<ProblemJson>, ConfigError> {
    let tokens = TokenPolicy::bearer(StaticTokens::new([(token, ())])?);
    Ok(GuardLayer::new(AllowOrigin::no_browsers())
        .allow_host(AllowHost::loopback())
        .token(tokens)?
        .reject_with(ProblemJson::new()))
}

pub(crate) fn app(guard: GuardLayer<ProblemJson>) -> Router {
    // For ordinary requests. It checks no token, so the responses must not be secret.
    let rest = RequestCheckLayer::origins(AllowOrigin::no_browsers())
        .allow_host(AllowHost::loopback())
        .reject_with(ProblemJson::new());
    Router::new()
        .route("/version", get(env!("CARGO_PKG_VERSION")))
        .layer(rest)
        .route("/ws", any(handler).layer(guard))
}

async fn handler(upgrade: GuardedUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket, ()| {
        let _ = socket.send(Message::text("hello")).await;
    })
}

/// 256 random bits.
pub(crate) fn new_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::from(([127, 0, 0, 1], 3000));
    let token = new_token()?;
    let guard = guard(&token)?;
    let lints = guard.lint(Some(address));
    assert!(lints.is_empty(), "{lints:?}");

    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("token: {token}");
    Ok(axum::serve(listener, app(guard)).await?)
}
