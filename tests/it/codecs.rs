//! Frame codecs over the handed-over connection, each tested with an independent client.

#[path = "../../examples/axum_guard.rs"]
#[allow(dead_code)]
mod axum_guard;
#[path = "../../examples/codec_fastwebsockets.rs"]
#[allow(dead_code)]
mod codec_fastwebsockets;
#[path = "../../examples/codec_ratchet.rs"]
#[allow(dead_code)]
pub(crate) mod codec_ratchet;
#[path = "../../examples/codec_soketto.rs"]
#[allow(dead_code)]
pub(crate) mod codec_soketto;
#[path = "../../examples/codec_tokio_websockets.rs"]
#[allow(dead_code)]
mod codec_tokio_websockets;
#[path = "../../examples/codec_tungstenite.rs"]
#[allow(dead_code)]
mod codec_tungstenite;
#[path = "../../examples/codec_yawc.rs"]
#[allow(dead_code)]
pub(crate) mod codec_yawc;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use crate::common::{handshake, send, serve_axum};

fn codecs() -> [(&'static str, Router); 7] {
    [
        ("axum", axum_guard::app().unwrap()),
        ("tokio-tungstenite", codec_tungstenite::app()),
        ("fastwebsockets", codec_fastwebsockets::app()),
        ("tokio-websockets", codec_tokio_websockets::app()),
        ("yawc", codec_yawc::app().unwrap()),
        ("ratchet", codec_ratchet::app().unwrap()),
        ("soketto", codec_soketto::app().unwrap()),
    ]
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Http1,
    Http2,
}

pub(crate) const TIME: Duration = Duration::from_secs(30);

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
type Client = WebSocketStream<Box<dyn Io>>;

/// Opens a WebSocket over a new connection; a rejection returns its status.
async fn connect(address: SocketAddr, transport: Transport, origin: &str) -> Result<Client, u16> {
    let stream = TcpStream::connect(address).await.unwrap();
    match transport {
        Transport::Http1 => {
            let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
            request.headers_mut().insert("origin", origin.parse().unwrap());
            match client_async(request, Box::new(stream) as Box<dyn Io>).await {
                Ok((client, _)) => Ok(client),
                Err(Error::Http(response)) => Err(response.status().as_u16()),
                Err(error) => panic!("{error}"),
            }
        }
        Transport::Http2 => {
            let (stream, _) = connect_http2(stream, address, &[("origin", origin)]).await?;
            Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
        }
    }
}

/// Opens a byte stream over a new connection; a rejection returns its status.
pub(crate) async fn connect_http2(
    stream: TcpStream,
    address: SocketAddr,
    headers: &[(&str, &str)],
) -> Result<(Box<dyn Io>, HeaderMap), u16> {
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // The client may use `:protocol` only after it received the settings of the server.
    let warm_up = Request::get(format!("http://{address}/")).body(Empty::<Bytes>::new()).unwrap();
    client.send_request(warm_up).await.unwrap();

    let request = Request::connect(format!("http://{address}/ws"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = client.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    let headers = response.headers().clone();
    Ok((Box::new(TokioIo::new(hyper::upgrade::on(response).await.unwrap())), headers))
}

async fn assert_works(client: &mut Client, cell: &str) -> Result<(), Error> {
    // As many bytes as yawc rejects by default, with no two parts alike.
    let large: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
    for message in [Message::text("grüße"), Message::binary(large)] {
        client.send(message.clone()).await?;
        let echoed = receive(client).await?;
        assert!(
            echoed == message,
            "{cell}: {} other bytes came back for {}",
            echoed.len(),
            message.len()
        );
    }

    client.send(Message::Ping("still there?".into())).await?;
    assert_eq!(receive(client).await?, Message::Pong("still there?".into()), "{cell}");
    // The ping caused nothing else.
    client.send(Message::text("after it")).await?;
    assert_eq!(receive(client).await?, Message::text("after it"), "{cell}");

    client.close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() })).await?;
    // tokio-websockets closes without the reason.
    let Message::Close(Some(response)) = receive(client).await? else {
        panic!("{cell}: no response to the close")
    };
    assert_eq!(response.code, CloseCode::Normal, "{cell}");
    assert!(client.next().await.is_none(), "{cell}: the server ends the connection");
    Ok(())
}

async fn receive(client: &mut Client) -> Result<Message, Error> {
    client.next().await.unwrap_or(Err(Error::ConnectionClosed))
}

#[tokio::test]
async fn codecs_work_over_every_transport() {
    for (codec, app) in codecs() {
        let address = serve_axum(app).await;
        for transport in [Transport::Http1, Transport::Http2] {
            let cell = format!("{codec} over {transport:?}");
            let exchange = async {
                let mut client =
                    match connect(address, transport, &format!("http://{address}")).await {
                        Ok(client) => client,
                        Err(status) => panic!("{cell}: rejected with {status}"),
                    };
                if let Err(error) = assert_works(&mut client, &cell).await {
                    panic!("{cell}: {error}");
                }
                assert_eq!(
                    connect(address, transport, "https://evil.example").await.err(),
                    Some(403),
                    "{cell}"
                );
            };
            timeout(TIME, exchange).await.unwrap_or_else(|_| panic!("{cell}: no response in time"));
        }
    }
}

/// A short text in one masked frame.
fn masked_text(text: &str) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = text.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x81, 0x80 | text.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

/// A page of an attacker whose name leads to a loopback address has the origin of its `Host`.
#[tokio::test]
async fn pages_of_other_hosts_are_rejected() {
    let rebound =
        handshake().with("Host", "evil.example:3000").with("Origin", "http://evil.example:3000");
    for (codec, app) in codecs() {
        assert_eq!(send(serve_axum(app).await, &rebound.bytes()).await.status, 421, "{codec}");
    }
}

#[tokio::test]
async fn codecs_receive_frames_sent_with_the_request() {
    let handshake = handshake().with("Host", "localhost").with("Origin", "http://localhost");
    for (codec, app) in codecs() {
        let address = serve_axum(app).await;
        let raw = [handshake.bytes(), masked_text("early"), masked_text("bird")].concat();
        let mut response = send(address, &raw).await;
        assert_eq!(response.status, 101, "{codec}");

        let expected = b"\x81\x05early\x81\x04bird";
        while response.rest.len() < expected.len() {
            let read = timeout(TIME, response.stream.read_buf(&mut response.rest)).await;
            let read = read.unwrap_or_else(|_| {
                panic!("{codec}: only {:?}", response.rest.escape_ascii().to_string())
            });
            assert!(
                read.unwrap() > 0,
                "{codec}: closed after {:?}",
                response.rest.escape_ascii().to_string()
            );
        }
        assert_eq!(response.rest, expected, "{codec}");
    }
}
