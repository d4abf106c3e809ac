//! What the servers share: the address, and the loop of those that are served by hyper.

use std::{convert::Infallible, fmt::Display, net::SocketAddr};

use hyper::{Request, Response, body::Body, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// The address of the environment variable `PORT`.
pub fn address() -> SocketAddr {
    let port = std::env::var("PORT").expect("PORT is set").parse().expect("PORT is a number");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Hands each connection to a task of its own.
pub async fn accept<F: Future<Output: Send> + Send + 'static>(serve: impl Fn(TcpStream) -> F) {
    let listener = TcpListener::bind(address()).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream));
    }
}

/// Serves HTTP/1.1 by hyper. As in the examples of the libraries, an error ends the connection.
pub async fn serve<B, E, F>(handle: impl Fn(Request<Incoming>) -> F + Copy + Send + Sync + 'static)
where
    B: Body<Data: Send, Error = Infallible> + Send + 'static,
    E: Display + Send + Sync + Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
{
    accept(move |stream| async move {
        let served = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(handle))
            .with_upgrades()
            .await;
        if let Err(error) = served {
            eprintln!("{error}");
        }
    })
    .await;
}
