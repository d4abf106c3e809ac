//! The endpoint: echoes messages, until the client closes the socket or the server drains.

use std::{sync::LazyLock, time::Duration};

use axum::{
    extract::{Request, ws},
    response::{IntoResponse, Response},
};
use futures_util::SinkExt;
use tokio::time::timeout;
use tower_ws_guard::{
    Ended, PendingUpgrade, Permit, Upgraded, axum::GuardedUpgrade, is_upgrade_request,
};
use yawc::{
    CompressionLevel, DeflatePool, Frame, OpCode, Options, Role, WebSocket, WebSocketError,
    close::CloseCode,
};

const HINT: &str = "This is a WebSocket endpoint: connect to it with a WebSocket client.\n";

/// Of a frame and of a message, before and after it is decompressed, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// A client that does not close its socket may not keep its slot.
const TIME_TO_CLOSE: Duration = Duration::from_secs(1);

fn time_to_close(ended: Ended) -> Duration {
    match ended {
        // The drain has a timeout of its own.
        Ended::Drained => Duration::MAX,
        _ => TIME_TO_CLOSE,
    }
}

static OPTIONS: LazyLock<Options> = LazyLock::new(|| {
    Options::default()
        .with_compression_level(CompressionLevel::fast())
        // yawc hangs when it compresses an empty message for the second time.
        .with_compression_threshold(1)
        // An idle socket keeps no window: 5 KiB in place of 340.
        .with_deflate_pool(DeflatePool::new(16))
        .with_read_buffer_capacity(1024)
        .with_write_buffer_capacity(1024)
        .with_limits(MAX_MESSAGE, MAX_MESSAGE)
        .with_utf8()
});

/// Mode `guard`: axum completes the handshake.
pub(crate) async fn guarded(
    upgrade: Result<GuardedUpgrade<Permit>, Response>,
    request: Request,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) if !is_upgrade_request(&request) => return HINT.into_response(),
        Err(response) => return response,
    };
    // In place of 128 KiB for each socket.
    let upgrade = upgrade.map(|upgrade| upgrade.read_buffer_size(4096));
    upgrade.on_upgrade(async |mut socket, permit| {
        let ended = tokio::select! {
            () = echo_by_axum(&mut socket) => return,
            ended = permit.ended() => ended,
        };
        let close = ws::CloseFrame { code: ended.close_code(), reason: ended.reason().into() };
        let client_closes = async {
            socket.send(ws::Message::Close(Some(close))).await?;
            while socket.recv().await.transpose()?.is_some() {}
            Ok::<_, axum::Error>(())
        };
        timeout(time_to_close(ended), client_closes).await.ok();
    })
}

async fn echo_by_axum(socket: &mut ws::WebSocket) {
    use ws::Message::{Binary, Text};
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Text(_) | Binary(_)) && socket.send(message).await.is_err() {
            break;
        }
    }
}

/// Mode `responder`: the guard completes the handshake.
pub(crate) async fn responded(pending: Option<PendingUpgrade>) -> &'static str {
    let Some(pending) = pending else { return HINT };
    pending.on_upgrade(async |upgraded: Upgraded| {
        let ended = upgraded.ended();
        let Ok(mut socket) = frames(upgraded) else { return };
        let close = tokio::select! {
            error = echo(&mut socket) => error.map(|close| (close, TIME_TO_CLOSE)),
            ended = ended => {
                let close = Frame::close(ended.close_code().into(), ended.reason());
                Some((close, time_to_close(ended)))
            }
        };
        let Some((close, time)) = close else { return };
        let client_closes = async {
            socket.send(close).await?;
            // At the next call yawc would respond to the client's close frame with a second one.
            while socket.next_frame().await?.opcode() != OpCode::Close {}
            Ok::<_, WebSocketError>(())
        };
        timeout(time, client_closes).await.ok();
    });
    ""
}

fn frames(upgraded: Upgraded) -> yawc::Result<WebSocket<Upgraded>> {
    let agreed = upgraded.extensions().permessage_deflate().map(|agreed| agreed.to_string());
    let (role, options) = (Role::Server, OPTIONS.clone());
    WebSocket::from_stream_with_extensions(upgraded, role, agreed.as_deref(), options)
}

/// Returns the close frame that the client must get, if it broke a rule.
async fn echo(socket: &mut WebSocket<Upgraded>) -> Option<Frame> {
    loop {
        match socket.next_frame().await {
            Ok(frame) if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) => {
                socket.send(frame).await.ok()?;
            }
            Ok(_) => {}
            Err(error) => return close_frame(&error),
        }
    }
}

fn close_frame(error: &WebSocketError) -> Option<Frame> {
    let code = match error {
        WebSocketError::InvalidUTF8 => CloseCode::Invalid,
        WebSocketError::FrameTooLarge => CloseCode::Size,
        error if error.is_protocol_error() => CloseCode::Protocol,
        // The client closed the socket, or left.
        _ => return None,
    };
    Some(Frame::close(code, error.to_string()))
}
