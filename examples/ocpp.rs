//! The central system of OCPP 1.6-J: a charge point connects to `/ocpp/ID`, and authenticates with
//! its id and its password in HTTP Basic.
//!
//! ```console
//! $ cargo run --example ocpp
//! $ websocat --protocol ocpp1.6 --basic-auth CP-1:0123456789abcdef ws://127.0.0.1:3000/ocpp/CP-1
//! [2,"1","StatusNotification",{}]
//! ```

use axum::{
    Router,
    extract::ws::{Message, WebSocket},
    response::Response,
    routing::any,
};
use http::{StatusCode, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, ProblemJson, Rejection, StaticTokens,
    Subprotocols, TokenPolicy, TokenSource, axum::GuardedUpgrade,
};

/// The id of a charge point.
type Id = &'static str;

/// The passwords are random, so `StaticTokens`, which stores their SHA-256 digests, is enough.
const CHARGE_POINTS: [(Id, &str); 2] = [("CP-1", "0123456789abcdef"), ("CP-2", "fedcba9876543210")];

pub(crate) fn app() -> Result<Router, ConfigError> {
    let credentials = CHARGE_POINTS.map(|(id, password)| (format!("{id}:{password}"), id));
    let token = TokenPolicy::from_sources([TokenSource::basic()], StaticTokens::new(credentials)?)?;
    // Browsers add HTTP Basic to the handshake of any page, so no page may connect.
    let guard = GuardLayer::new(AllowOrigin::no_browsers())
        .allow_host(AllowHost::loopback())
        .subprotocols(Subprotocols::list(["ocpp1.6"])?)
        .token(token)?
        .authorize(only_as_itself)
        .reject_with(ProblemJson::new());
    Ok(Router::new().route("/ocpp/{id}", any(handler).layer(guard)))
}

/// Compares the id in the path with the user name, whose password the guard has verified.
async fn only_as_itself(head: &Parts) -> Result<(), Rejection> {
    let path = head.uri.path().rsplit('/').next().unwrap_or_default();
    match head.extensions.get() {
        Some(Claims::<Id>(id)) if percent_decode_str(path).eq(id.bytes()) => Ok(()),
        _ => Err(Rejection::custom("other-charge-point", StatusCode::FORBIDDEN)
            .with_title("the credential belongs to another charge point")
            .with_value(path)),
    }
}

async fn handler(upgrade: GuardedUpgrade<Claims<Id>>) -> Response {
    upgrade.on_upgrade(serve)
}

async fn serve(mut socket: WebSocket, Claims(id): Claims<Id>) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        println!("{id}: {text}");
        if let Some(reply) = reply(&text)
            && socket.send(Message::text(reply.to_string())).await.is_err()
        {
            break;
        }
    }
}

/// Responds to a CALL (2) with a CALLRESULT (3) or a CALLERROR (4).
fn reply(text: &str) -> Option<Value> {
    let (2, call, action, _) = serde_json::from_str::<(u8, String, String, Value)>(text).ok()?
    else {
        return None;
    };
    Some(match &*action {
        "StatusNotification" | "MeterValues" => json!([3, call, {}]),
        "Authorize" => json!([3, call, { "idTagInfo": { "status": "Accepted" } }]),
        _ => json!([4, call, "NotImplemented", "", {}]),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
