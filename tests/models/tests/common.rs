//! How a model runs, and what it calls.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt::Debug,
    future::{Future, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use loom::{
    model::Builder,
    thread::{self, JoinHandle},
};
use models::{
    AllowOrigin, GuardLayer, Permit, Rejection,
    test_util::{HandshakeRequest, handshake},
};
use tower::{Layer, Service, service_fn};

/// How often a thread may be interrupted where it need not wait. `LOOM_MAX_PREEMPTIONS` is another number.
const PREEMPTIONS: usize = 3;

/// Longer than any model runs.
pub const LONG: Duration = Duration::from_secs(1000);

/// Runs `model` in every order of its threads' steps, and asserts that its results are `expected`: no others, and all of them.
#[track_caller]
pub fn explore<T: Clone + Debug + Ord + Send + 'static>(
    expected: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
) {
    let results = Arc::new(Mutex::new((0_u32, BTreeSet::new())));
    let seen = Arc::clone(&results);
    let model = Arc::new(model);
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.max_branches = 10_000;
    let begin = Instant::now();
    builder.check(move || {
        let model = Arc::clone(&model);
        let result = start(move || model()).join().unwrap();
        let mut seen = seen.lock().unwrap();
        seen.0 += 1;
        seen.1.insert(result);
    });
    let results = results.lock().unwrap();
    println!("{} orders in {:.1} s", results.0, begin.elapsed().as_secs_f32());
    assert_eq!(results.1, expected.into_iter().collect());
}

/// A thread with a stack for more than a few atomics.
pub fn start<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap()
}

/// The result of a future that need not wait.
#[track_caller]
pub fn now<F: Future>(future: F) -> F::Output {
    let Poll::Ready(output) = poll(future) else { panic!("the future waits") };
    output
}

pub fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin().allow_missing())
}

/// A handshake through `guard`: its permit, or the code of its rejection.
pub fn enter(guard: &GuardLayer) -> Result<Permit, &'static str> {
    enter_with(guard, handshake("/"))
}

pub fn enter_with(guard: &GuardLayer, request: HandshakeRequest) -> Result<Permit, &'static str> {
    let accept = service_fn(|mut request: Request<()>| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.extensions_mut().insert(Permit::claim(request.extensions_mut()));
        ready(Ok::<_, Infallible>(response))
    });
    let Ok(mut response) = now(guard.layer(accept).call(request.build(())));
    match response.extensions_mut().remove::<Option<Permit>>() {
        Some(permit) => Ok(permit.expect("the guard has permits")),
        None => {
            Err(response.extensions().get::<Rejection>().expect("nothing else fails").kind().code())
        }
    }
}
