use soketto::{
    Mode,
    extension::deflate::Deflate,
    handshake::{Server, server::Response},
};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt;

async fn serve(stream: TcpStream) -> Option<()> {
    let mut server = Server::new(stream.compat());
    server.add_protocol("chat");
    server.add_extension(Box::new(Deflate::new(Mode::Server)));
    let (key, protocol) = match server.receive_request().await {
        Ok(request) => (request.key(), request.protocols().next().map(str::to_owned)),
        Err(_) => {
            let response = Response::Reject { status_code: 400 };
            server.send_response(&response).await.ok()?;
            return None;
        }
    };
    let protocol = protocol.as_deref();
    server.send_response(&Response::Accept { key, protocol }).await.ok()?;
    let (mut sender, mut receiver) = server.into_builder().finish();
    loop {
        let mut data = Vec::new();
        let kind = receiver.receive_data(&mut data).await.ok()?;
        if kind.is_text() {
            sender.send_text(std::str::from_utf8(&data).ok()?).await.ok()?;
        } else {
            sender.send_binary(&data).await.ok()?;
        }
        sender.flush().await.ok()?;
    }
}

#[tokio::main]
async fn main() {
    servers::accept(serve).await;
}
