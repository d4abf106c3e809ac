//! Sessions of tower-sessions: a logged-in user gets a socket, and logging out closes it.
//!
//! `cargo run --example session_cookie`, then open the address that it prints.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::Html,
    routing::{any, get, post},
};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    },
};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, SessionStore, session::Id};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, Ended, GuardLayer, PendingUpgrade, Rejection,
    RejectionKind, RequestCheckLayer, Sessions, Token, TokenPolicy, TokenSource, Upgraded,
    Verified,
};

const PAGE: &str = r#"<!doctype html>
<title>Sessions</title>
<p><button onclick="post('/login').then(connect)">Log in</button> <button onclick="post('/logout')">Log out</button>
<p>The socket: <output id="said">none yet</output>
<script>
  const post = (path) => fetch(path, { method: "POST" });
  function connect() {
    const socket = new WebSocket("/ws");
    socket.onmessage = ({ data }) => (said.value = data);
    socket.onclose = ({ code, reason }) => (said.value = `closed with ${code} ${reason}`);
  }
</script>
"#;

/// The sockets of each login. On a Redis (`Sessions::on_redis`) a log-out reaches all servers.
type Sockets = Sessions<String>;

const MAX_TABS: usize = 20;

pub(crate) fn app() -> Result<Router, ConfigError> {
    let store = MemoryStore::default();
    let sockets = Sockets::per_claims(MAX_TABS, |user: &User| user.session.clone())?;
    // Without TLS, browsers do not keep a `Secure` cookie. Behind TLS, remove `with_secure(false)`.
    let sessions = SessionManagerLayer::new(store.clone()).with_name("session").with_secure(false);

    let verifier = move |token: Token| user(store.clone(), token);
    let token = TokenPolicy::from_sources([TokenSource::cookie("session")?], verifier)?;
    let hosts = AllowHost::loopback();
    // A browser adds the cookie to the handshake of any page. The origin check rejects foreign
    // pages.
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(hosts.clone())
        .token(token)?
        .sessions(&sockets)
        .respond();
    Ok(Router::new()
        .route("/", get(Html(PAGE)))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .with_state(sockets)
        .layer(sessions)
        .layer(RequestCheckLayer::hosts(hosts))
        .route("/ws", any(handler).layer(guard)))
}

#[derive(Clone)]
struct User {
    session: String,
    name: String,
}

/// Returns the user of a session.
async fn user(store: MemoryStore, token: Token) -> Result<Verified<User>, Rejection> {
    let unknown = || Rejection::new(RejectionKind::TokenInvalid);
    let session = token.expose().parse::<Id>().map_err(|_| unknown())?;
    let record =
        store.load(&session).await.map_err(Rejection::verifier_failed)?.ok_or_else(unknown)?;
    let name = record.data.get("user").and_then(|name| name.as_str()).ok_or_else(unknown)?;
    let user = User { session: session.to_string(), name: name.to_owned() };
    Ok(Verified::new(user).expires_at(record.expiry_date.into()))
}

async fn login(session: Session) -> Result<(), StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    // A new session, so that nobody who planted the cookie of the old one is logged in, too.
    session.cycle_id().await.map_err(failed)?;
    session.insert("user", "alice").await.map_err(failed)?;
    session.save().await.map_err(failed)
}

async fn logout(State(sockets): State<Sockets>, session: Session) -> Result<(), StatusCode> {
    let id = session.id();
    // First, so that no socket opens after the others have ended.
    session.flush().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    if let Some(id) = id {
        let ended = sockets.end(&id.to_string(), Ended::Revoked).await;
        ended.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    }
    Ok(())
}

async fn handler(pending: PendingUpgrade, Claims(user): Claims<User>) {
    pending.on_upgrade(move |socket| serve(socket, user.name));
}

async fn serve(socket: Upgraded, name: String) {
    let ended = socket.ended();
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    let _ = socket.send(Message::text(format!("hello {name}"))).await;
    tokio::select! {
        () = async { while let Some(Ok(_)) = socket.next().await {} } => {}
        ended = ended => {
            let reason =
                CloseFrame { code: ended.close_code().into(), reason: ended.reason().into() };
            // A client that does not read must not delay the end of the task.
            let _ = timeout(Duration::from_secs(5), socket.close(Some(reason))).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
