//! A WebSocket over HTTP/2: extended CONNECT (RFC 8441).

use bytes::Bytes;
use h2::{Ping, RecvStream, SendStream, client, ext::Protocol};
use http::{HeaderName, HeaderValue, Method, Request, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, timeout_at},
};

use crate::{
    body::{self, Body, MAX_BODY},
    exchange::{
        Detour, Exchange, Fault, GRACE, Means, Received, Stream, in_time, received, watch_socket,
    },
    response::Head,
};

pub(crate) async fn converse(
    means: &Means,
    detour: &Detour,
    stream: Box<dyn Stream>,
    deadline: Instant,
    exchange: &mut Exchange,
) -> Result<Received, Fault> {
    let plan = &means.plan;
    let failed = |error: h2::Error| Fault::Http2(error.to_string());
    let late = |_| Fault::NoResponse;
    let handshake =
        client::Builder::new().max_concurrent_reset_streams(1).handshake::<_, Bytes>(stream);
    let (mut sender, mut connection) =
        timeout_at(deadline, handshake).await.map_err(late)?.map_err(failed)?;
    let mut ping = connection.ping_pong().expect("it is taken once");
    let connection = tokio::spawn(connection);
    // The SETTINGS of the server come in front of its pong (RFC 9113 3.4).
    let pong = timeout_at(deadline, ping.ping(Ping::opaque())).await.map_err(late)?;
    pong.map_err(failed)?;
    sender = timeout_at(deadline, sender.ready()).await.map_err(late)?.map_err(failed)?;
    if exchange.variant.upgrade && !sender.is_extended_connect_protocol_enabled() {
        connection.abort();
        return Err(Fault::NoExtendedConnect);
    }

    let sent = Instant::now();
    exchange.request = Some(plan.head(&exchange.variant));
    let request = request(means, exchange).map_err(Fault::Http2)?;
    let is_end = !exchange.variant.upgrade;
    let (response, send) = sender.send_request(request, is_end).map_err(failed)?;
    let response = timeout_at(deadline, response).await.map_err(late)?.map_err(failed)?;
    let time = sent.elapsed();
    let (parts, mut body) = response.into_parts();
    let headers =
        parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let headers = headers.collect::<Vec<_>>();
    let mut raw = format!(":status: {}\r\n", parts.status.as_u16()).into_bytes();
    for (name, value) in &headers {
        raw.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    let head = Head { raw, minor: None, status: parts.status.as_u16(), headers, ..Head::default() };

    let (bytes, socket) = if exchange.variant.upgrade && head.status == 200 {
        let watch = detour.watch.map_or(means.watch, |watch| watch.min(means.watch));
        let deflate = head
            .text("sec-websocket-extensions")
            .is_some_and(|value| value.contains("permessage-deflate"));
        let (mut near, far) = duplex(MAX_BODY);
        let bridge = tokio::spawn(bridge(send, body, far));
        let socket =
            watch_socket(&mut near, &[], deflate, watch, means.ping && detour.watch.is_none())
                .await;
        bridge.abort();
        (Vec::new(), Some(socket))
    } else {
        let mut bytes = Vec::new();
        let until = deadline.min(Instant::now() + GRACE);
        while bytes.len() < MAX_BODY && body::has_body(&head) {
            let Ok(Some(Ok(data))) = in_time(until, body.data()).await else { break };
            bytes.extend_from_slice(&data);
            let _ = body.flow_control().release_capacity(data.len());
        }
        bytes.truncate(MAX_BODY);
        (bytes, None)
    };
    connection.abort();
    let body = Body { bytes, complete: true };
    Ok(received(&plan.to_request(&exchange.variant), head, time, &body, socket))
}

fn request(means: &Means, exchange: &Exchange) -> Result<Request<()>, String> {
    let (path, headers) = means.plan.request(&exchange.variant);
    let authority = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let authority =
        authority.map_or_else(|| means.plan.target.authority(), |(_, host)| host.clone());
    let scheme = if means.plan.target.tls() { "https" } else { "http" };
    let mut request = Request::builder()
        .uri(format!("{scheme}://{authority}{path}"))
        .version(Version::HTTP_2)
        .body(())
        .map_err(|error| error.to_string())?;
    if exchange.variant.upgrade {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    for (name, value) in headers {
        // RFC 9113 8.2.2, RFC 8441 5.
        if ["host", "connection", "upgrade", "sec-websocket-key", "keep-alive"]
            .contains(&&*name.to_ascii_lowercase())
        {
            continue;
        }
        let name: HeaderName =
            name.parse().map_err(|_| format!("the header {name} cannot be sent"))?;
        let value: HeaderValue =
            value.parse().map_err(|_| format!("the header {name} cannot be sent"))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// Makes a byte stream of the two halves of an HTTP/2 stream.
async fn bridge(mut send: SendStream<Bytes>, mut receive: RecvStream, mut far: DuplexStream) {
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            data = receive.data() => match data {
                Some(Ok(data)) => {
                    let _ = receive.flow_control().release_capacity(data.len());
                    if far.write_all(&data).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = far.read(&mut buffer) => match read {
                Ok(length @ 1..) => {
                    if send.send_data(Bytes::copy_from_slice(&buffer[..length]), false).is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
