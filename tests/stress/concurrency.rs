//! Races between threads: decisions on a handshake, permits of a limit, and the start of a drain.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use fastrand::Rng;
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    task::{JoinSet, yield_now},
    time::timeout,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, GuardLayer, PendingUpgrade, Permit, Rejection,
    RejectionKind, ResponderLayer, Token, TokenPolicy, test_util,
};

use crate::common::handshake;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// Varies the point at which the threads of a round meet.
fn spin(random: &mut Rng) {
    for _ in 0..random.u32(..300) {
        std::hint::spin_loop();
    }
}

/// The response of the service during the race.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reaction {
    Completes,
    Rejects,
    /// The response is dropped, as if the client had left.
    Never,
}

/// The outcome of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    HandedOver,
    Declined,
    TooLate,
}

const ACCEPTING: usize = 3;

/// Several threads accept, await the connection, or drop it, while another one responds.
async fn race(seed: u64) -> (Reaction, Outcome) {
    let mut random = Rng::with_seed(seed);
    let reaction =
        random.choice([Reaction::Completes, Reaction::Rejects, Reaction::Never]).unwrap();
    let limit = ConnectionLimit::total(1).unwrap();
    let shared = Arc::new(Mutex::new(None));
    let share = Arc::clone(&shared);
    let inner = service_fn(move |mut request: Request<()>| {
        *share.lock().unwrap() = request.extensions_mut().remove::<PendingUpgrade>();
        let mut response = Response::new(());
        if reaction == Reaction::Rejects {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        ready(Ok::<_, Infallible>(response))
    });
    let (request, mut client) = test_util::upgradable(handshake().request()).await;
    let future = ResponderLayer::new().limit(limit.clone()).layer(inner).call(request);
    let pending = shared.lock().unwrap().take().unwrap();

    let runtime = Handle::current();
    let (start, responded) = (Barrier::new(ACCEPTING + 1), AtomicBool::new(false));
    let (status, connections) = tokio::task::block_in_place(|| {
        thread::scope(|scope| {
            let accepting = (0..ACCEPTING).map(|_| {
                let (pending, mut random, start, responded, runtime) =
                    (pending.clone(), random.fork(), &start, &responded, &runtime);
                scope.spawn(move || {
                    start.wait();
                    spin(&mut random);
                    let before = !responded.load(SeqCst);
                    let upgrade = pending.accept()?;
                    assert!(before, "it is too late");
                    drop(pending);
                    Some(
                        runtime
                            .block_on(async { timeout(LONG, upgrade).await.expect("it is told") })
                            .ok(),
                    )
                })
            });
            let accepting = accepting.collect::<Vec<_>>();
            drop(pending.clone());
            start.wait();
            spin(&mut random);
            let status = match reaction {
                Reaction::Never => {
                    drop(future);
                    None
                }
                _ => match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Ok(response)) => Some(response.status()),
                    Poll::Pending => panic!("the inner service is ready"),
                },
            };
            responded.store(true, SeqCst);
            let connections = accepting.into_iter().filter_map(|thread| thread.join().unwrap());
            (status, connections.collect::<Vec<_>>())
        })
    });
    assert!(pending.accept().is_none(), "{seed}");
    assert!(connections.len() <= 1, "{seed}: {} have won", connections.len());

    let outcome = match connections.into_iter().next() {
        Some(Some(mut socket)) => {
            assert_eq!(
                (status, limit.connections()),
                (Some(StatusCode::SWITCHING_PROTOCOLS), 1),
                "{seed}"
            );
            socket.write_all(b"open").await.unwrap();
            Outcome::HandedOver
        }
        Some(None) => {
            assert_eq!(
                status,
                (reaction == Reaction::Rejects).then_some(StatusCode::FORBIDDEN),
                "{seed}"
            );
            Outcome::Declined
        }
        None => {
            assert_ne!(status, Some(StatusCode::SWITCHING_PROTOCOLS), "{seed}");
            Outcome::TooLate
        }
    };
    assert_eq!(limit.connections(), 0, "{seed}");
    // The client sees the same.
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received == b"open", outcome == Outcome::HandedOver, "{seed}");
    (reaction, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_upgrade_is_accepted_by_one_thread_and_handed_over_only_with_the_101() {
    let mut seen = Vec::new();
    for seed in 0..2_000 {
        seen.push(race(seed).await);
    }
    seen.sort_by_key(|(reaction, outcome)| (*reaction as u8, *outcome));
    seen.dedup();
    use Outcome::{Declined, HandedOver, TooLate};
    use Reaction::{Completes, Never, Rejects};
    // Each outcome of each race occurred.
    let all = [
        (Completes, HandedOver),
        (Completes, TooLate),
        (Rejects, Declined),
        (Rejects, TooLate),
        (Never, Declined),
    ];
    assert!(all.iter().all(|case| seen.contains(case)), "{seen:?}");
    assert!(
        seen.iter().all(|(reaction, outcome)| (*reaction == Completes) == (*outcome == HandedOver)
            || *outcome == TooLate)
    );
}

/// Varies the time between a handshake and its end.
async fn dawdle(random: &mut Rng) {
    for _ in 0..random.u32(..4) {
        yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_limit_is_never_exceeded_and_loses_no_permit() {
    const SLOTS: usize = 5;
    let limit = ConnectionLimit::total(SLOTS).unwrap();
    // Counts claimed connections independently of the limit.
    let open = Arc::new(AtomicUsize::new(0));
    let inner = service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        // All clones share the handshake, as in a service that may retry.
        let claims = [
            request.extensions().clone(),
            request.extensions().clone(),
            request.extensions().clone(),
        ];
        let claiming = claims.map(|mut extensions| {
            tokio::spawn(async move {
                let permit = Permit::claim(&mut extensions);
                (permit, extensions.remove::<OnUpgrade>())
            })
        });
        let mut permits = Vec::new();
        for claiming in claiming {
            let (permit, upgrade) = claiming.await.unwrap();
            assert_eq!(permit.is_some(), upgrade.is_some(), "they belong together");
            permits.extend(permit);
        }
        assert_eq!(permits.len(), 1, "one of them gets the connection");
        response.extensions_mut().insert(permits);
        Ok::<_, Infallible>(response)
    });
    let service = GuardLayer::new(AllowOrigin::same_origin()).limit(limit.clone()).layer(inner);

    let mut clients = JoinSet::new();
    for seed in 0..16 {
        let (service, limit, open) = (service.clone(), limit.clone(), Arc::clone(&open));
        clients.spawn(async move {
            let mut random = Rng::with_seed(seed);
            let mut accepted = 0;
            for _ in 0..300 {
                let mut future = pin!(service.clone().oneshot(handshake().upgradable()));
                if random.u8(..8) == 0 {
                    // The client leaves at a random point.
                    for _ in 0..random.u8(..4) {
                        let polled =
                            std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
                        if polled.is_ready() {
                            break;
                        }
                        yield_now().await;
                    }
                    continue;
                }
                let mut response = future.await.unwrap();
                let Some(mut permits) = response.extensions_mut().remove::<Vec<Permit>>() else {
                    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                    yield_now().await;
                    continue;
                };
                accepted += 1;
                let at_once = open.fetch_add(1, SeqCst) + 1;
                assert!(at_once <= SLOTS && limit.connections() >= 1, "{at_once}");
                dawdle(&mut random).await;
                // The last permit counts, wherever it is.
                let last = permits.swap_remove(random.usize(..permits.len()));
                tokio::spawn(async move { drop(permits) }).await.unwrap();
                assert!((1..=SLOTS).contains(&limit.connections()));
                open.fetch_sub(1, SeqCst);
                drop(last);
            }
            accepted
        });
    }
    let accepted = clients.join_all().await.into_iter().sum::<i32>();
    assert!(accepted > 100, "{accepted}");
    assert_eq!(limit.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_counts_or_rejects_every_handshake() {
    let (mut counted, mut rejected) = (0, 0);
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let drain = Drain::new();
        let over = Arc::new(AtomicBool::new(false));
        let inner = service_fn(async |mut request: Request<()>| {
            let permit = Permit::claim(request.extensions_mut());
            yield_now().await;
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.extensions_mut().insert(permit);
            Ok::<_, Infallible>(response)
        });
        let verifier = async |_: Token| {
            yield_now().await;
            Ok::<_, Rejection>(().into())
        };
        let guard = GuardLayer::new(AllowOrigin::same_origin())
            .token(TokenPolicy::bearer(verifier))
            .unwrap()
            .drain(&drain);
        let service = guard.layer(inner);

        let mut clients = JoinSet::new();
        for _ in 0..20 {
            let (service, over, mut random) = (service.clone(), Arc::clone(&over), random.fork());
            clients.spawn(async move {
                dawdle(&mut random).await;
                let request = handshake().and("Authorization", "Bearer x").upgradable();
                let mut response = service.oneshot(request).await.unwrap();
                match response.extensions_mut().remove::<Option<Permit>>() {
                    Some(permit) => {
                        let permit = permit.expect("there is a drain");
                        timeout(LONG, permit.ended()).await.expect("it is told");
                        dawdle(&mut random).await;
                        assert!(!over.load(SeqCst), "it was waited for");
                        true
                    }
                    None => {
                        let rejection = response.extensions().get::<Rejection>().unwrap();
                        assert_eq!(rejection.kind(), RejectionKind::ShuttingDown);
                        false
                    }
                }
            });
        }
        let waiting = {
            let (drain, over) = (drain.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                dawdle(&mut random).await;
                assert_eq!(drain.wait(LONG).await, 0);
                over.store(true, SeqCst);
            })
        };
        let accepted = clients.join_all().await;
        waiting.await.unwrap();
        assert_eq!(drain.connections(), 0);
        counted += accepted.iter().filter(|accepted| **accepted).count();
        rejected += accepted.iter().filter(|accepted| !**accepted).count();
    }
    // Both outcomes occurred.
    assert!(counted > 100 && rejected > 100, "{counted} counted, {rejected} rejected");
}
