//! Sessions of tower-sessions: who is logged in gets a socket, and logging out ends it.
//!
//! `cargo run --example session_cookie`, then open the address that it prints.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::Html,
    routing::{any, get, post},
};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, SessionStore, session::Id};
use tower_ws_guard::{
    AllowOrigin, Claims, ConfigError, GuardLayer, PendingUpgrade, Rejection, RejectionKind, ResponderLayer, Token,
    TokenPolicy, TokenSource, Upgraded, VerifyToken,
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

#[derive(Clone)]
struct User {
    name: String,
    logout: CancellationToken,
}

/// By what the sockets of a session are ended. With several servers this takes a message to all of them.
type Logouts = Arc<Mutex<HashMap<Id, CancellationToken>>>;

fn logout_of(logouts: &Logouts, session: Id) -> CancellationToken {
    logouts.lock().expect("nobody panics while holding it").entry(session).or_default().clone()
}

pub(crate) fn app() -> Result<Router, ConfigError> {
    let store = MemoryStore::default();
    let logouts = Logouts::default();
    let sessions = SessionManagerLayer::new(store.clone()).with_name("session");

    let verifier = {
        let logouts = Arc::clone(&logouts);
        move |token: Token| user(store.clone(), Arc::clone(&logouts), token)
    };
    let token = TokenPolicy::from_sources(
        [TokenSource::cookie("session")?],
        verifier.revocable(|user: &User| user.logout.clone()),
    )?;
    // A browser adds the cookie to the handshake of any page: the origin check is what keeps foreign ones out.
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(token);
    let layers = ServiceBuilder::new().layer(guard).layer(ResponderLayer::new());
    Ok(Router::new()
        .route("/", get(Html(PAGE)))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .with_state(logouts)
        .layer(sessions)
        .route("/ws", any(handler).layer(layers)))
}

/// The user of a session, if there is one.
async fn user(store: MemoryStore, logouts: Logouts, token: Token) -> Result<User, Rejection> {
    let session = token.expose().parse::<Id>().map_err(|_| RejectionKind::TokenInvalid)?;
    // First this and then the session: so a log-out in between ends the socket or is seen here.
    let logout = logout_of(&logouts, session);
    let record = store.load(&session).await.map_err(Rejection::verifier_failed)?;
    let name = record.as_ref().and_then(|record| record.data.get("user")?.as_str());
    match name {
        Some(name) => Ok(User { name: name.into(), logout }),
        None => {
            logouts.lock().expect("nobody panics while holding it").remove(&session);
            Err(RejectionKind::TokenInvalid.into())
        }
    }
}

async fn login(session: Session) -> Result<(), StatusCode> {
    session.insert("user", "alice").await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn logout(State(logouts): State<Logouts>, session: Session) -> Result<(), StatusCode> {
    let id = session.id();
    session.flush().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let logout = id.and_then(|id| logouts.lock().expect("nobody panics while holding it").remove(&id));
    if let Some(logout) = logout {
        logout.cancel();
    }
    Ok(())
}

async fn handler(pending: PendingUpgrade, Claims(user): Claims<User>) {
    pending.on_upgrade(move |socket| serve(socket, user));
}

async fn serve(socket: Upgraded, user: User) {
    let ended = socket.validity().ended();
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    let _ = socket.send(Message::text(format!("hello {}", user.name))).await;
    tokio::select! {
        () = async { while let Some(Ok(_)) = socket.next().await {} } => {}
        () = ended => {
            let reason = CloseFrame { code: CloseCode::Policy, reason: "logged out".into() };
            let _ = socket.close(Some(reason)).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
