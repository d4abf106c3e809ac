//! A socket: it relays messages between a client and its room, until one of them ends it.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZero,
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{
        ConnectInfo, State,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::HeaderMap,
    response::Response,
};
use governor::{Quota, RateLimiter};
use serde_json::json;
use tokio::time::{interval, timeout};
use tower_ws_guard::{Claims, Permit, axum::GuardedUpgrade};

use crate::{Chat, login::Member, rooms::Membership};

/// Of a message, in bytes.
const MAX_TEXT: usize = 2000;

/// A client that does not read may not keep its slot.
const TIME_TO_SEND: Duration = Duration::from_secs(10);

const TIME_TO_CLOSE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) ping: Duration,
    pub(crate) behind_proxy: bool,
}

pub(crate) async fn open<S>(
    State(Chat { rooms, sockets, .. }): State<Chat<S>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    upgrade: GuardedUpgrade<(Claims<Member>, Permit)>,
) -> Response {
    let by_proxy = headers.get("x-real-ip").filter(|_| sockets.behind_proxy);
    let by_proxy = by_proxy.and_then(|address| address.to_str().ok()?.parse::<IpAddr>().ok());
    let address = by_proxy.unwrap_or(peer.ip());
    // A few small messages. The default is 128 KiB for each socket, and 64 MiB for a message.
    let upgrade = upgrade.map(|upgrade| upgrade.read_buffer_size(4096).max_message_size(16 * 1024));
    upgrade.on_upgrade(async move |socket, (Claims(member), permit)| {
        tracing::info!(user = member.user, room = member.room, %address, "joined");
        // The gauge of the guard counts only the sockets that it hands over itself.
        let open = metrics::gauge!("chat_sockets");
        open.increment(1);
        let reason = serve(socket, &member, permit, rooms.join(&member.room), &sockets).await;
        open.decrement(1);
        tracing::info!(user = member.user, room = member.room, %address, reason, "left");
    })
}

/// Returns why the socket is closed.
async fn serve(
    mut socket: WebSocket,
    member: &Member,
    permit: Permit,
    mut room: Membership,
    settings: &Settings,
) -> &'static str {
    const FIVE: NonZero<u32> = NonZero::new(5).expect("it is not 0");
    const TWENTY: NonZero<u32> = NonZero::new(20).expect("it is not 0");
    let rate = RateLimiter::direct(Quota::per_second(FIVE).allow_burst(TWENTY));
    let mut ended = pin!(permit.ended());
    let mut ping = interval(settings.ping);
    let mut is_alive = true;
    let (code, reason) = loop {
        let message = tokio::select! {
            ended = &mut ended => break (ended.close_code(), ended.reason()),
            message = room.next() => match message {
                Some(message) => Message::Text(message),
                // It reads more slowly than the others write.
                None => break (1013, "too slow"),
            },
            _ = ping.tick() => {
                if !is_alive {
                    return "silent";
                }
                is_alive = false;
                Message::Ping("".into())
            }
            received = socket.recv() => {
                is_alive = true;
                let Some(Ok(received)) = received else { return "gone" };
                let problem = match received {
                    Message::Text(text) if text.len() > MAX_TEXT => "the message is too long",
                    Message::Text(_) if rate.check().is_err() => "you send too fast",
                    Message::Text(text) => match say(&room, &member.user, &text).await {
                        Ok(()) => continue,
                        Err(problem) => problem,
                    },
                    Message::Binary(_) => break (1003, "text only"),
                    // axum responds to pings.
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
                };
                metrics::counter!("chat_messages_total", "outcome" => "rejected").increment(1);
                Message::text(json!({ "error": problem }).to_string())
            }
        };
        if !matches!(timeout(TIME_TO_SEND, socket.send(message)).await, Ok(Ok(()))) {
            return "does not read";
        }
    };
    // Frees the room, and still counts for the drain until the client has closed, too.
    drop(room);
    let client_closes = async {
        let close = CloseFrame { code, reason: reason.into() };
        socket.send(Message::Close(Some(close))).await.ok();
        while let Some(Ok(_)) = socket.recv().await {}
    };
    timeout(TIME_TO_CLOSE, client_closes).await.ok();
    reason
}

async fn say(room: &Membership, user: &str, text: &str) -> Result<(), &'static str> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let message = json!({ "from": user, "text": text, "at": now as u64 });
    room.send(message.to_string()).await.map_err(|error| {
        tracing::error!(%error, "a message was not sent");
        "the message was not sent: try again"
    })?;
    metrics::counter!("chat_messages_total", "outcome" => "sent").increment(1);
    Ok(())
}
