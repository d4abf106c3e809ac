//! One-time tickets: a page gets a ticket by an authenticated request, and opens its socket with
//! it.
//!
//! `cargo run --example tickets`, then open the address that it prints.

use axum::{
    Json, Router,
    extract::{
        FromRequestParts, State,
        ws::{Message, WebSocketUpgrade},
    },
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, ORIGIN, RETRY_AFTER},
        request::Parts,
    },
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use serde::{Deserialize, Serialize};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, Origin, ProblemJson,
    RequestCheckLayer, StaticTokens, Token, TokenPolicy, TokenSource, VerifyToken,
    token::ticket::{MemoryTicketStore, TicketIssuer, TicketStore, TicketVerifier},
};

const PAGE: &str = r#"<!doctype html>
<title>One-time tickets</title>
<p>What the socket says: <output id="said">nothing yet</output>
<script>
  (async () => {
    const headers = { Authorization: "Bearer s3cr3t" }; // As your page authenticates: with a session, for instance.
    const response = await fetch("/tickets", { method: "POST", headers });
    const { ticket } = await response.json();
    new WebSocket(`/ws?ticket=${ticket}`).onmessage = ({ data }) => (said.value = data);
  })();
</script>
"#;

#[derive(Clone, Deserialize, Serialize)]
struct User {
    name: String,
}

pub(crate) fn app<S: TicketStore + Clone>(store: S) -> Result<Router, ConfigError> {
    let verifier = TicketVerifier::<User, _>::new(store.clone());
    let token = TokenPolicy::from_sources([TokenSource::query("ticket")?], verifier)?;
    let hosts = AllowHost::loopback();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(hosts.clone())
        .token(token)?
        .reject_with(ProblemJson::new());
    let tickets =
        Router::new().route("/tickets", post(ticket)).with_state(TicketIssuer::new(store));
    Ok(Router::new()
        .route("/", get(Html(PAGE)))
        .merge(tickets)
        .layer(RequestCheckLayer::hosts(hosts))
        .route("/ws", any(handler).layer(guard)))
}

async fn ticket<S: TicketStore + Clone>(
    State(issuer): State<TicketIssuer<S>>,
    headers: HeaderMap,
    user: User,
) -> Result<Response, StatusCode> {
    // Only the page that asks can redeem the ticket.
    let origin = headers.get(ORIGIN).ok_or(StatusCode::BAD_REQUEST)?;
    let origin = Origin::parse(origin.as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
    // One user must not fill the store.
    let issued = issuer.quota(&user.name, 20).issue_to_origin(&user, &origin).await;
    let ticket = match issued {
        Ok(ticket) => ticket,
        Err(error) => {
            let delay = error.retry_after().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
            let retry_after = [(RETRY_AFTER, delay.as_secs().to_string())];
            return Ok((StatusCode::TOO_MANY_REQUESTS, retry_after).into_response());
        }
    };
    let body = Json(serde_json::json!({ "ticket": ticket.expose() }));
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], body).into_response())
}

/// A stand-in for the authentication of your application.
impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(request: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let tokens = StaticTokens::new([("s3cr3t", "alice")])
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let header = request.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let token = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let verified = tokens
            .verify(Token::new(token), request)
            .await
            .map_err(|_| StatusCode::UNAUTHORIZED)?;
        Ok(Self { name: (*verified.claims()).to_owned() })
    }
}

async fn handler(upgrade: WebSocketUpgrade, Claims(user): Claims<User>) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let _ = socket.send(Message::text(format!("hello {}", user.name))).await;
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = app(MemoryTicketStore::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
