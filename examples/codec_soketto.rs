//! A guard that completes the handshake, with soketto for the frames and their compression, over
//! HTTP/1.1 and HTTP/2.
//!
//! `cargo run --example codec_soketto`, then open a socket to ws://127.0.0.1:3000/ws from a page of
//! http://127.0.0.1:3000.

use axum::{Router, routing::any};
use soketto::{
    Data,
    connection::{Builder, Mode},
    extension::{Extension, Param, deflate::Deflate},
};
use tokio::io::BufWriter;
use tokio_util::compat::TokioAsyncReadCompatExt;
use tower_ws_guard::{
    AgreedDeflate, AllowHost, AllowOrigin, ConfigError, GuardLayer, PendingUpgrade,
    PermessageDeflate, Upgraded,
};

const MAX_MESSAGE: usize = 16 << 20;
/// The bound of a message if the client may compress it. Against bombs: soketto bounds what it
/// receives, and not what that expands to, which is up to 1032 times as much. So this small bound
/// lets a message expand to 68 MB. `MAX_MESSAGE` is checked behind that.
const MAX_COMPRESSED: usize = 64 << 10;

pub(crate) fn app() -> Result<Router, ConfigError> {
    // What zlib can compress with. And soketto expands each message with an empty window.
    let deflate = PermessageDeflate::new().server_window_bits(9..=15)?.client_no_context_takeover();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .extensions(deflate)
        .respond();
    // `any` and not `get`: over HTTP/2 a handshake is a CONNECT.
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(pending: PendingUpgrade) {
    pending.on_upgrade(echo);
}

/// Reads to the end, because soketto responds to pings and the close while it is read.
async fn echo(socket: Upgraded) {
    let deflate = socket.extensions().permessage_deflate().and_then(deflate);
    let max = if deflate.is_some() { MAX_COMPRESSED } else { MAX_MESSAGE };
    // It writes the head of a frame on its own.
    let mut builder = Builder::new(BufWriter::new(socket).compat(), Mode::Server);
    builder.set_max_message_size(max);
    builder.set_max_frame_size(max);
    builder.add_extensions(deflate);
    let (mut sender, mut receiver) = builder.finish();
    loop {
        // A new one each time, which does not hold the memory of the largest message.
        let mut message = Vec::new();
        let Ok(data) = receiver.receive_data(&mut message).await else { break };
        if message.len() > MAX_MESSAGE {
            break;
        }
        let sent = match data {
            Data::Binary(_) => sender.send_binary(message).await,
            // It does not check that text is UTF-8.
            Data::Text(_) => match String::from_utf8(message) {
                Ok(text) => sender.send_text(text).await,
                Err(_) => break,
            },
        };
        if sent.is_err() || sender.flush().await.is_err() {
            break;
        }
    }
}

/// Of what was agreed, soketto needs the size of its own window.
fn deflate(agreed: AgreedDeflate) -> Option<Box<dyn Extension + Send>> {
    let mut bits = Param::new("server_max_window_bits");
    bits.set_value(Some(agreed.server_max_window_bits().to_string()));
    let mut deflate = Deflate::new(Mode::Server);
    deflate.configure(&[bits]).ok()?;
    Some(Box::new(deflate))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
