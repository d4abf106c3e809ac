//! Rejections in the format of your API. An outer layer logs them for the operator.
//!
//! `cargo run --example custom_rejection`, then
//! `curl -i -H 'Sec-WebSocket-Version: 13' http://127.0.0.1:3000/ws`.

use axum::{
    Router, body::Body, extract::ws::WebSocketUpgrade, middleware::map_response,
    response::Response, routing::any,
};
use http::{HeaderValue, header::CONTENT_TYPE, request::Parts};
use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer, Rejection};

/// `prepared` has the status and the required headers. The guard keeps them, whatever this function
/// returns.
fn envelope(rejection: &Rejection, request: &Parts, mut prepared: Response<()>) -> Response {
    let error = serde_json::json!({
        "error": { "code": rejection.kind().code(), "path": request.uri.path() },
    });
    prepared.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    prepared.map(|()| Body::from(error.to_string()))
}

/// `Display` of a rejection names the cause, the offending value and the fix. It is for logs, not
/// for untrusted clients.
async fn log(response: Response) -> Response {
    if let Some(rejection) = response.extensions().get::<Rejection>() {
        eprintln!("{rejection}");
    }
    response
}

pub(crate) fn app() -> Router {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .reject_with(envelope);
    Router::new().route("/ws", any(handler).layer(guard).layer(map_response(log)))
}

async fn handler(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |_| {})
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app()).await
}
