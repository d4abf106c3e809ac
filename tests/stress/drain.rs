//! The drain of many sockets.

use std::{
    convert::Infallible,
    env,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{AllowOrigin, Drain, Ended, GuardLayer, Permit, Upgraded};

use crate::common::{self, handshake, send, serve};

const SLOT: Duration = Duration::from_millis(250);

fn size(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |size| size.parse().unwrap())
}

/// `DRAIN_SOCKETS=9500 DRAIN_SECONDS=5` is the full size, with 20,000 open files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_spreads_the_close_frames_evenly() {
    let count = size("DRAIN_SOCKETS", 1000);
    let time = Duration::from_secs(size("DRAIN_SECONDS", 2) as u64);
    let drain = Drain::spread_over(time);
    let callback = async |mut socket: Upgraded| {
        let ended = socket.ended().await;
        socket.write_all(&[&[0x88, 2][..], &ended.close_code().to_be_bytes()].concat()).await.ok();
    };
    let guard = GuardLayer::new(AllowOrigin::same_origin()).drain(&drain).on_upgraded(callback);
    let inner = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(common::Body::default()))
    });
    let address = serve(guard.layer(inner)).await;
    let mut clients = JoinSet::new();
    for batch in 0..count.div_ceil(50) {
        let opening = (batch * 50..count.min(batch * 50 + 50))
            .map(|_| async move { send(address, &handshake().bytes()).await });
        for mut response in opening.collect::<JoinSet<_>>().join_all().await {
            assert_eq!(response.status, 101);
            clients.spawn(async move {
                let mut frame = [0; 4];
                response.stream.read_exact(&mut frame).await.unwrap();
                assert_eq!(frame, *b"\x88\x02\x03\xe9");
                Instant::now()
            });
        }
    }
    let start = Instant::now();
    drain.start();
    let times = clients.join_all().await;
    let mut slots = vec![0; time.div_duration_f64(SLOT) as usize];
    for time in times {
        let slot = (time - start).div_duration_f64(SLOT) as usize;
        let last = slots.len() - 1;
        slots[slot.min(last)] += 1;
    }
    println!("close frames of {count} sockets in each {SLOT:?}: {slots:?}");
    // A busy machine may skip a slot.
    assert!(slots.iter().all(|&closed| closed < 3 * count / slots.len()), "{slots:?}");
    assert_eq!(drain.wait(Duration::from_secs(30)).await, 0);
}

/// The caller is not held while all connections are notified. `DRAIN_PERMITS=100000` is the full
/// size.
#[tokio::test]
async fn start_of_a_drain_notifies_nobody_by_itself() {
    let count = size("DRAIN_PERMITS", 20_000);
    let drain = Drain::new();
    let ends = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let ends = Arc::clone(&ends);
        service_fn(move |mut request: Request<()>| {
            let permit = Permit::claim(request.extensions_mut()).expect("a permit");
            ends.lock().unwrap().push(Box::pin(async move { permit.ended().await }));
            let response = Response::builder().status(101).body(()).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        })
    };
    let service = GuardLayer::new(AllowOrigin::same_origin()).drain(&drain).layer(inner);
    for _ in 0..count {
        let response = service.clone().oneshot(handshake().request()).await.unwrap();
        // The future of the connection keeps the permit that the response must hold.
        assert_eq!(response.status(), 101);
    }
    let mut ends = std::mem::take(&mut *ends.lock().unwrap());
    assert!(ends.iter_mut().all(|end| end.now_or_never().is_none()));
    let start = Instant::now();
    drain.start();
    let held = start.elapsed();
    // No other task has run.
    assert!(ends.iter_mut().all(|end| end.now_or_never().is_none()));
    for end in ends {
        assert_eq!(end.await, Ended::Drained);
    }
    println!(
        "{count} permits: the caller was held for {held:?}, all ended after {:?}",
        start.elapsed()
    );
}
